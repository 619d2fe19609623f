// An ECG on paper: 25 mm/s and 10 mm/mV on a canvas, with zoom, calipers, and colour behind what a score rests on.

const LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
const SHEET = [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"]];
const MM_PER_S = 25, MM_PER_MV = 10, MARGIN = 5, TOP = 8, ROW = { sheet: 32, rows: 22, one: 60 };

export class Paper {
  // signal: of /v1/signal. onMeasure is told of calipers that were dragged: {lead, from, to} in ms.
  constructor(canvas, onMeasure = null) {
    Object.assign(this, { canvas, onMeasure, zoom: 1, layout: "sheet", signal: null, salient: null, calipers: null });
    if (onMeasure) {
      canvas.addEventListener("pointerdown", (event) => this.#press(event));
      canvas.addEventListener("pointermove", (event) => this.#drag(event));
      canvas.addEventListener("pointerup", () => (this.pressed = null));
      canvas.addEventListener("pointercancel", () => (this.pressed = null));
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  show(signal) {
    Object.assign(this, { signal, salient: null, calipers: null });
    this.zero = Object.fromEntries(Object.entries(signal.leads).map(([lead, values]) => [lead, median(values)]));
    this.draw();
  }

  set(values) {
    Object.assign(this, values);
    this.draw();
  }

  // What is drawn where: {lead, x, y} in mm, and the seconds of the recording from start on.
  strips() {
    const there = LEADS.filter((lead) => lead in this.signal.leads);
    const seconds = this.seconds();
    if (this.layout === "rows" || this.layout === "sheet") {
      const height = ROW[this.layout], found = [];
      if (this.layout === "rows") {
        there.forEach((lead, i) => found.push({ lead, x: MARGIN, y: TOP + (i + 0.5) * height, start: 0, seconds }));
        return { found, height: TOP + there.length * height };
      }
      const quarter = seconds / 4;
      SHEET.forEach((row, i) => row.forEach((lead, j) => {
        const start = quarter * j;
        found.push({ lead, x: MARGIN + MM_PER_S * start, y: TOP + (i + 0.5) * height, start, seconds: quarter });
      }));
      const strip = ["II", "V1", ...there].find((lead) => there.includes(lead));
      found.push({ lead: strip, x: MARGIN, y: TOP + 3.5 * height, start: 0, seconds });
      return { found, height: TOP + 4 * height };
    }
    return { found: [{ lead: this.layout, x: MARGIN, y: ROW.one / 2, start: 0, seconds }], height: ROW.one };
  }

  seconds() {
    const samples = Math.max(...Object.values(this.signal.leads).map((values) => values.length));
    return this.layout === "sheet" ? Math.min(10, samples / this.signal.fs) : samples / this.signal.fs;
  }

  draw() {
    if (!this.signal) return;
    const { canvas } = this, { found, height } = this.strips();
    const width = 2 * MARGIN + MM_PER_S * this.seconds();
    const fit = canvas.parentElement.clientWidth / (2 * MARGIN + MM_PER_S * Math.min(10, this.seconds()));
    this.scale = Math.max(fit, 2.4) * this.zoom; // pixels per mm
    const dense = Math.min(devicePixelRatio || 1, 2);
    const [w, h] = [Math.floor(width * this.scale), Math.floor(height * this.scale)];
    canvas.width = w * dense;
    canvas.height = h * dense;
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
    const g = canvas.getContext("2d");
    g.scale(dense * this.scale, dense * this.scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name);
    g.fillStyle = colour("--paper");
    g.fillRect(0, 0, width, height);
    this.#grid(g, width, height, 1, colour("--fine"), 0.12);
    this.#grid(g, width, height, 5, colour("--heavy"), 0.22);
    for (const strip of found) {
      if (this.salient) this.#colour(g, strip);
      this.#trace(g, strip, colour("--trace"), colour("--paper"));
    }
    if (this.calipers) this.#calipers(g, found, colour("--good"));
  }

  #grid(g, width, height, step, colour, line) {
    if (step === 1 && this.scale < 3) return; // finer than the eye
    g.strokeStyle = colour;
    g.lineWidth = line;
    g.beginPath();
    for (let x = 0; x <= width; x += step) { g.moveTo(x, 0); g.lineTo(x, height); }
    for (let y = 0; y <= height; y += step) { g.moveTo(0, y); g.lineTo(width, y); }
    g.stroke();
  }

  #trace(g, strip, ink, paper) {
    const values = this.signal.leads[strip.lead], { fs } = this.signal;
    g.strokeStyle = ink;
    g.lineWidth = Math.max(0.25, 1.1 / this.scale);
    if (strip.start) { // where one lead ends and the next begins
      g.beginPath();
      g.moveTo(strip.x, strip.y - 4);
      g.lineTo(strip.x, strip.y + 4);
      g.stroke();
    }
    if (values) {
      const first = Math.round(strip.start * fs), last = Math.min(values.length, Math.round((strip.start + strip.seconds) * fs) + 1);
      g.lineJoin = "round";
      g.beginPath();
      let gap = true;
      for (let i = first; i < last; i++) {
        if (values[i] === null) { gap = true; continue; }
        const x = strip.x + (MM_PER_S * (i - first)) / fs, y = this.#height(strip, values[i]);
        if (gap) g.moveTo(x, y); else g.lineTo(x, y);
        gap = false;
      }
      g.stroke();
    }
    const size = Math.max(3, 12 / this.scale), text = values ? strip.lead : `${strip.lead}: none`;
    g.font = `600 ${size}px system-ui, sans-serif`;
    g.fillStyle = paper;
    g.fillRect(strip.x + 0.6, strip.y - 13 - size, g.measureText(text).width + 0.8, size * 1.15);
    g.fillStyle = ink;
    g.fillText(text, strip.x + 1, strip.y - 13 - size * 0.15);
  }

  #height(strip, microvolts) {
    return strip.y - (MM_PER_MV * (microvolts - this.zero[strip.lead])) / 1000;
  }

  // Orange: the score rests on it; blue: it speaks against the finding.
  #colour(g, strip) {
    const parts = this.salient.lead_time[strip.lead], step = this.salient.step_s;
    const top = Math.max(1e-9, ...Object.values(this.salient.lead_time).flat().map(Math.abs));
    (parts || []).forEach((value, i) => {
      const from = Math.max(i * step, strip.start), to = Math.min((i + 1) * step, strip.start + strip.seconds);
      if (to <= from) return;
      g.fillStyle = `rgba(${value > 0 ? "230,115,13" : "40,120,210"},${0.7 * Math.min(1, Math.abs(value) / top)})`;
      g.fillRect(strip.x + MM_PER_S * (from - strip.start), strip.y - 11, MM_PER_S * (to - from), 22);
    });
  }

  #calipers(g, found, colour) {
    const { lead, from, to } = this.calipers;
    const strip = found.filter((one) => one.lead === lead).find((one) => this.#covers(one, from / 1000, to / 1000));
    if (!strip) return;
    const at = (ms) => strip.x + MM_PER_S * (ms / 1000 - strip.start);
    g.strokeStyle = g.fillStyle = colour;
    g.lineWidth = Math.max(0.3, 1.5 / this.scale);
    g.beginPath();
    for (const ms of [from, to]) { g.moveTo(at(ms), strip.y - 14); g.lineTo(at(ms), strip.y + 14); }
    g.stroke();
    g.globalAlpha = 0.14;
    g.fillRect(at(Math.min(from, to)), strip.y - 14, Math.abs(at(to) - at(from)), 28);
    g.globalAlpha = 1;
  }

  #covers(strip, ...times) {
    return times.every((time) => time >= strip.start - 1e-6 && time <= strip.start + strip.seconds + 1e-6);
  }

  // The strip under the pointer, and the ms in it; a drag stays in the strip where it began.
  #place(event, held = null) {
    const box = this.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / this.scale, y = (event.clientY - box.top) / this.scale;
    const near = (one) => Math.abs(one.y - y) + (x < one.x || x > one.x + MM_PER_S * one.seconds ? 1e3 : 0);
    const strip = held || this.strips().found.sort((a, b) => near(a) - near(b))[0];
    const time = strip.start + Math.min(Math.max((x - strip.x) / MM_PER_S, 0), strip.seconds);
    return { strip, ms: Math.round(1000 * time) };
  }

  #press(event) {
    if (!this.signal || event.pointerType === "touch" || event.button) return; // a finger scrolls
    const { strip, ms } = this.#place(event);
    this.pressed = { strip, from: ms };
    this.canvas.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    if (!this.pressed) return;
    const { strip, from } = this.pressed, { ms } = this.#place(event, strip);
    this.set({ calipers: { lead: strip.lead, from, to: ms } });
    this.onMeasure(this.calipers);
  }

  // {ms, mv}: the time between the calipers, and the difference of the trace at their two ends; mv null in gaps.
  measured() {
    const { lead, from, to } = this.calipers, values = this.signal.leads[lead] || [];
    const [a, b] = [from, to].map((ms) => values[Math.round((ms / 1000) * this.signal.fs)] ?? null);
    return { ms: Math.abs(to - from), mv: a === null || b === null ? null : (b - a) / 1000 };
  }
}

function median(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  return known.length ? known[known.length >> 1] : 0;
}
