// A microphone to a live transcript: AudioWorklet, PCM16, WebSocket.
import { Problem, fromClosedSocket, fromMicrophone, fromRefusedSocket } from "./problems.js";

const CLOSE_WAIT_MS = 30000;
const BEHIND_BYTES = 1 << 20; // some ten seconds that the network has not taken yet

// `on` holds callbacks: level(peak), message(results), behind(yes). Gives a handle with stop().
export async function listen({ model, credentials, on }) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Problem("The microphone needs a safe address.", "Browsers allow it on https:// and on http://localhost only. A file can be sent from here all the same.");
  }
  const media = await navigator.mediaDevices
    .getUserMedia({ audio: { channelCount: 1, noiseSuppression: false } })
    .catch((error) => { throw fromMicrophone(error); });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule("page/pcm-worklet.js");
    const socket = await connect(context.sampleRate, model, credentials);
    return new Recording(media, context, socket, on);
  } catch (error) {
    release(media, context);
    throw error;
  }
}

async function connect(rate, model, credentials) {
  const address = new URL("v1/listen", document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = new URLSearchParams({
    model, encoding: "linear16", sample_rate: String(Math.round(rate)), channels: "1", interim_results: "true",
  });
  const socket = new WebSocket(address, credentials.protocols());
  socket.binaryType = "arraybuffer";
  const opened = await new Promise((done) => {
    socket.onopen = () => done(true);
    socket.onerror = () => done(false);
  });
  if (!opened) throw await fromRefusedSocket(credentials.headers());
  return socket;
}

class Recording {
  constructor(media, context, socket, on) {
    this.rate = Math.round(context.sampleRate);
    this.blocks = [];
    this.bytes = 0;
    this.media = media;
    this.context = context;
    this.socket = socket;
    this.on = on;
    this.stopping = false;
    this.source = context.createMediaStreamSource(media);
    this.worklet = new AudioWorkletNode(context, "pcm16", { numberOfOutputs: 0 });
    this.worklet.port.onmessage = ({ data }) => this.hear(data);
    socket.onmessage = ({ data }) => this.read(JSON.parse(data));
    // Settles once the server has closed: with null after a clean end, or with what went wrong.
    this.ended = new Promise((done) => {
      socket.onclose = (event) => {
        release(this.media, this.context);
        done(event.code === 1000 ? null : fromClosedSocket(event));
      };
    });
    this.source.connect(this.worklet);
  }

  get seconds() {
    return this.bytes / 2 / this.rate;
  }

  hear({ pcm, peak, done }) {
    if (done) return this.flushed?.();
    this.blocks.push(pcm);
    this.bytes += pcm.byteLength;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(pcm);
    this.on.behind(this.socket.bufferedAmount > BEHIND_BYTES);
    this.on.level(peak);
  }

  read(message) {
    if (message.type === "Results") this.on.message(message);
  }

  // The rest of the audio, then the end: what was said becomes final before the server closes.
  async stop() {
    if (this.stopping) return;
    this.stopping = true;
    const rest = new Promise((done) => { this.flushed = done; });
    this.worklet.port.postMessage("flush");
    await rest;
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "CloseStream" }));
    for (const track of this.media.getTracks()) track.stop();
    setTimeout(() => this.socket.close(), CLOSE_WAIT_MS);
  }

  // What was recorded, as a WAV file for the player.
  wav() {
    const head = new DataView(new ArrayBuffer(44));
    const text = (at, letters) => [...letters].forEach((letter, n) => head.setUint8(at + n, letter.charCodeAt(0)));
    text(0, "RIFF");
    head.setUint32(4, 36 + this.bytes, true);
    text(8, "WAVEfmt ");
    head.setUint32(16, 16, true);
    head.setUint16(20, 1, true);
    head.setUint16(22, 1, true);
    head.setUint32(24, this.rate, true);
    head.setUint32(28, 2 * this.rate, true);
    head.setUint16(32, 2, true);
    head.setUint16(34, 16, true);
    text(36, "data");
    head.setUint32(40, this.bytes, true);
    return new Blob([head, ...this.blocks], { type: "audio/wav" });
  }
}

function release(media, context) {
  for (const track of media.getTracks()) track.stop();
  if (context.state !== "closed") context.close();
}
