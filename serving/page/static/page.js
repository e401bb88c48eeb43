// Wires the page: one recording or one file at a time, everything else waits.
import { listen } from "./live.js";
import { Problem, fromAnswer, unreachable } from "./problems.js";
import { copyText, showSnippets } from "./snippets.js";
import { TranscriptView, clock } from "./transcript.js";
import { transcribe } from "./upload.js";
import { Wave } from "./wave.js";

const at = (id) => document.getElementById(id);
const view = new TranscriptView({
  words: at("transcript"), empty: at("empty"), detail: at("detail"), announce: at("announce"), player: at("player"),
});
const wave = new Wave(at("wave"));
const STAGES = ["network", "queue", "features", "model", "decoding"];
let model = "auricle";
let live = null; // the running Recording
let sent = null; // the running upload
let saved = null; // address of the JSON to download

// The key lives in this variable only: no storage of the browser ever holds it.
let key = "";

// On the operator's own machine the service hands out the development key; elsewhere there is none.
async function ownKey() {
  const answer = await fetch("page/key", { cache: "no-store" }).catch(() => null);
  return answer?.status === 200 ? (await answer.json()).key : "";
}

const credentials = {
  headers: () => (key ? { Authorization: `Bearer ${key}` } : {}),
  protocols: () => (key ? ["token", key] : []),
};

function say(text) {
  at("state").textContent = text;
}

function show(problem) {
  const known = problem instanceof Problem ? problem : new Problem("Something unexpected happened.", String(problem));
  at("problem-title").textContent = known.title;
  at("problem-text").textContent = known.message;
  at("problem").hidden = false;
  if (known.status === 401) {
    at("key-form").hidden = false;
    at("key").focus();
  }
}

function fresh() {
  at("problem").hidden = true;
  at("timing").hidden = true;
  view.clear();
  offer(null);
}

function offer(answer) {
  if (saved) URL.revokeObjectURL(saved);
  saved = answer && URL.createObjectURL(new Blob([JSON.stringify(answer, null, 2)], { type: "application/json" }));
  const link = at("save");
  link.setAttribute("aria-disabled", String(!saved));
  if (saved) {
    link.href = saved;
    link.download = "transcript.json";
  } else link.removeAttribute("href");
  at("copy-text").disabled = !answer || !view.text;
}

function ready(isLive, isBusy = false) {
  const button = at("record");
  button.dataset.live = String(isLive);
  button.setAttribute("aria-disabled", String(isBusy)); // `disabled` would take the keyboard's focus away
  at("record-name").textContent = isLive ? "Stop recording" : "Start recording";
  at("file").disabled = isLive || isBusy;
  at("clock").hidden = !isLive;
}

async function record() {
  if (at("record").getAttribute("aria-disabled") === "true") return;
  if (live) {
    ready(true, true);
    say("Finishing the last words …");
    return live.stop();
  }
  fresh();
  wave.clear();
  ready(false, true);
  say("Asking for the microphone …");
  const finals = [];
  let heard;
  try {
    live = await listen({
      model,
      credentials,
      on: {
        level: (peak) => {
          wave.add(peak);
          at("clock").textContent = clock(live?.seconds ?? 0);
        },
        behind: (yes) => live && !live.stopping && say(yes ? "The network is slower than your voice …" : "Listening. Press again to stop."),
        message: (results) => {
          const [best] = results.channel.alternatives;
          if (results.is_final) {
            finals.push(results);
            view.add(best.words);
          } else view.guess(best.transcript);
        },
      },
    });
    ready(true);
    say("Listening. Press again to stop.");
    const problem = await live.ended;
    if (problem) show(problem);
    heard = live;
  } catch (problem) {
    show(problem);
  } finally {
    live = null;
    ready(false);
    say(heard ? `Done: ${heard.seconds.toFixed(1)} s heard. Press to speak again.` : "Press to speak. Words appear while you talk.");
  }
  if (!heard) return;
  view.nothing("No speech was heard. Is the right microphone chosen?");
  if (heard.bytes) view.sound(heard.wav());
  offer(finals);
}

async function send(file) {
  if (!file || live || sent) return;
  fresh();
  ready(false, true);
  say(`Sending ${file.name} …`);
  at("sending").hidden = false;
  const bar = at("progress");
  bar.value = 0;
  try {
    sent = transcribe(file, {
      model,
      credentials,
      progress: (part) => {
        if (part < 1) bar.value = part;
        else {
          bar.removeAttribute("value");
          say("Listening to it …");
        }
      },
    });
    const answer = await sent.answer;
    if (answer) read(answer, file);
    else say("Cancelled. Press to speak, or send another file.");
  } catch (problem) {
    show(problem);
    say("Press to speak, or send another file.");
  } finally {
    sent = null;
    at("sending").hidden = true;
    at("file").value = "";
    ready(false);
  }
}

function read(answer, file) {
  const transcript = answer.auricle;
  for (const segment of transcript.segments) view.add(segment.words);
  view.nothing("No speech was found in this recording.");
  view.sound(file);
  offer(answer);
  const spent = transcript.timings_ms.total / 1000;
  const rate = spent > 0 ? `, ${Math.round(transcript.duration_s / spent)} times the speed of speech` : "";
  say(`Done: ${transcript.duration_s.toFixed(1)} s of sound in ${spent.toFixed(2)} s${rate}.`);
  showTimings(transcript.timings_ms);
}

function showTimings(timings) {
  at("timing").hidden = false;
  at("timing-total").textContent = `${timings.total.toFixed(0)} ms in all`;
  at("timing-bar").replaceChildren(...STAGES.map((stage) => {
    const part = document.createElement("span");
    part.dataset.part = stage;
    part.style.flexGrow = timings[stage];
    return part;
  }));
  at("timing-list").replaceChildren(...STAGES.map((stage) => {
    const row = fact(stage, `${timings[stage].toFixed(1)} ms`);
    row.dataset.part = stage;
    return row;
  }));
}

function fact(name, value, { code = false, wide = false } = {}) {
  const row = document.createElement("div");
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = name;
  const inner = code ? text.appendChild(document.createElement("code")) : text;
  inner.textContent = value;
  if (wide) row.className = "wide";
  row.append(term, text);
  return row;
}

async function meet() {
  const answer = await fetch("v1/models", { headers: credentials.headers() }).catch(() => { throw unreachable(); });
  if (!answer.ok) throw fromAnswer(answer.status, await answer.text());
  const [facts] = (await answer.json()).data;
  model = facts.id;
  const domain = document.createElement("em");
  domain.textContent = facts.domain;
  at("purpose").replaceChildren("This model was trained for ", domain, ". Expect its best there; it has not learned to hear anything else.");
  const language = new Intl.DisplayNames(["en"], { type: "language" }).of(facts.language);
  at("model").replaceChildren(
    fact("Trained for", facts.domain),
    fact("Language", language),
    fact("Name and version", `${facts.id} @ ${facts.version}`),
    fact("Weights", facts.variant),
    fact("Digest of its files", facts.bundle_digest, { code: true, wide: true }),
  );
}

async function begin() {
  ready(false);
  at("record").addEventListener("click", record);
  at("file").addEventListener("change", ({ target }) => send(target.files[0]));
  at("cancel").addEventListener("click", () => sent?.cancel());
  at("problem-close").addEventListener("click", () => { at("problem").hidden = true; });
  at("copy-text").addEventListener("click", ({ target }) => copyText(view.text, target, at("copied")));
  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = at("key").value.trim();
    at("key").value = "";
    at("key-form").hidden = true;
    at("problem").hidden = true;
    meet().catch(show);
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    window.addEventListener(name, (event) => {
      event.preventDefault(); // a file dropped beside the box must not replace the page
      at("drop").dataset.over = String(name === "dragenter" || name === "dragover");
      if (name === "drop") send(event.dataTransfer.files[0]);
    });
  }
  key = await ownKey();
  await meet().catch((problem) => {
    at("purpose").textContent = "The service has not said which model it runs.";
    show(problem);
  });
  await showSnippets({ tabs: at("tabs"), panels: at("snippets"), copied: at("copied"), model });
}

begin();
