// Microphone samples to little-endian 16-bit blocks of a tenth of a second, with their peak.
class Pcm16 extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ended = false;
    this.begin();
    this.port.onmessage = () => {
      this.send();
      this.ended = true;
      this.port.postMessage({ done: true });
    };
  }

  begin() {
    this.block = new DataView(new ArrayBuffer(2 * Math.round(sampleRate / 10)));
    this.filled = 0;
    this.peak = 0;
  }

  send() {
    if (!this.filled) return;
    const pcm = this.block.buffer.slice(0, this.filled);
    this.port.postMessage({ pcm, peak: this.peak }, [pcm]);
    this.begin();
  }

  process([channels]) {
    if (this.ended) return false;
    for (const sample of channels[0] ?? []) {
      const held = Math.max(-1, Math.min(1, sample));
      this.peak = Math.max(this.peak, Math.abs(held));
      this.block.setInt16(this.filled, Math.round(held * 32767), true);
      this.filled += 2;
      if (this.filled === this.block.byteLength) this.send();
    }
    return true;
  }
}

registerProcessor("pcm16", Pcm16);
