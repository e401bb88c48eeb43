// The last seconds of the microphone's level, newest at the right.
const STEP_PX = 5;

export class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.levels = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.levels = [];
    this.draw();
  }

  add(peak) {
    this.levels.push(peak);
    if (this.levels.length > 400) this.levels.shift();
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.canvas);
    pen.fillStyle = style.color;
    const places = Math.floor(width / STEP_PX);
    const shown = this.levels.slice(-places);
    for (let place = 0; place < places; place++) {
      const peak = shown[place - (places - shown.length)];
      const tall = Math.max(2, Math.min(1, (peak ?? 0) ** 0.6) * height);
      pen.globalAlpha = peak === undefined ? 0.25 : 1;
      pen.beginPath();
      pen.roundRect(place * STEP_PX, (height - tall) / 2, 2.5, tall, 1.25);
      pen.fill();
    }
  }
}
