// Words on the page: finals that can be played, one partial in flight, arrow keys between words.
// Confidence is evidence, not a probability. Of barista's test words 99 % are right above the first
// bound and 86 % below the second.
const SURE = 0.3;
const FAIR = 0.15;
const PAUSE_S = 1.2; // a longer silence begins a new line

export const clock = (seconds) => {
  const whole = Math.floor(seconds / 60);
  return `${whole}:${(seconds - 60 * whole).toFixed(1).padStart(4, "0")}`;
};

export class TranscriptView {
  constructor({ words, empty, detail, announce, player }) {
    this.box = words;
    this.empty = empty;
    this.detail = detail;
    this.announcer = announce;
    this.player = player;
    this.partial = document.createElement("span");
    this.partial.className = "partial";
    words.addEventListener("keydown", (event) => this.move(event));
    words.addEventListener("click", (event) => this.play(event.target));
    for (const name of ["focusin", "pointerover"]) words.addEventListener(name, (event) => this.tell(event.target));
    player.addEventListener("timeupdate", () => this.follow());
    player.addEventListener("seeked", () => this.follow());
    this.clear();
  }

  clear() {
    this.words = []; // {word, start, end, confidence, element}
    this.line = null;
    this.box.replaceChildren(this.empty);
    this.detail.textContent = "";
    this.announcer.textContent = "";
    this.player.hidden = true;
    this.player.removeAttribute("src");
  }

  get text() {
    return [...this.box.querySelectorAll("p[data-line]")]
      .map((line) => [...line.querySelectorAll("button.word")].map((word) => word.textContent).join(" "))
      .join("\n");
  }

  // Words that will not change any more.
  add(words) {
    this.partial.remove();
    for (const word of words) {
      const last = this.words.at(-1);
      if (!this.line || (last && word.start - last.end > PAUSE_S)) this.begin(word.start);
      this.line.append(this.button(word), " ");
    }
    if (words.length) this.announcer.textContent = words.map((word) => word.word).join(" ");
  }

  // What the model takes the running words for; replaced by the next call.
  guess(text) {
    this.partial.textContent = text;
    if (!text) return this.partial.remove();
    if (!this.line) this.begin(null);
    this.line.append(this.partial);
  }

  nothing(text) {
    this.partial.remove();
    if (this.words.length) return;
    this.empty.textContent = text;
    this.box.replaceChildren(this.empty);
  }

  sound(blob) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(blob);
    this.player.src = this.url;
    this.player.hidden = false;
  }

  begin(start) {
    this.empty.remove();
    this.line = document.createElement("p");
    this.line.dataset.line = "";
    if (start !== null) {
      const time = document.createElement("time");
      time.textContent = clock(start);
      this.line.append(time);
    }
    this.box.append(this.line);
  }

  button(word) {
    if (!this.line.querySelector("time")) {
      const time = document.createElement("time");
      time.textContent = clock(word.start);
      this.line.prepend(time);
    }
    const element = document.createElement("button");
    element.type = "button";
    element.className = `word ${band(word.confidence)}`;
    element.textContent = word.word;
    element.tabIndex = this.words.length ? -1 : 0; // one stop for Tab, arrows inside
    element.dataset.at = this.words.length;
    this.words.push({ ...word, element });
    return element;
  }

  of(element) {
    return this.words[element.closest?.("button.word")?.dataset.at];
  }

  tell(element) {
    const word = this.of(element);
    if (!word) return;
    const facts = [`${word.start.toFixed(2)} to ${word.end.toFixed(2)} s`, `confidence ${word.confidence.toFixed(2)}`];
    this.detail.textContent = [word.word, ...facts].join(" · ");
  }

  play(element) {
    const word = this.of(element);
    if (!word || this.player.hidden) return;
    this.player.currentTime = word.start;
    this.player.play().catch(() => {}); // a browser that forbids sound still shows the place
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const word = this.of(event.target);
    if (!word || (step === undefined && !["Home", "End"].includes(event.key))) return;
    const at = Number(word.element.dataset.at);
    const next = event.key === "Home" ? 0 : event.key === "End" ? this.words.length - 1 : at + step;
    const target = this.words[Math.max(0, Math.min(this.words.length - 1, next))].element;
    word.element.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
    event.preventDefault();
  }

  follow() {
    const now = this.player.currentTime;
    for (const { element, start, end } of this.words) {
      if (now >= start && now < end) element.dataset.now = "true";
      else delete element.dataset.now;
    }
  }
}

function band(confidence) {
  if (confidence >= SURE) return "sure";
  return confidence >= FAIR ? "fair" : "doubt";
}
