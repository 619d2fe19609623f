// The page: files in, findings out. Every answer comes from the interface under /v1; nothing is kept and nothing is
// fetched from elsewhere.
import { Paper } from "./paper.js";

const $ = (id) => document.getElementById(id);
const FIRST = 12; // findings shown at once
const NAMES = {
  rate_bpm: ["Rate", "/min"], pr_ms: ["PR", "ms"], qrs_ms: ["QRS", "ms"], qt_ms: ["QT", "ms"], qtc_ms: ["QTc", "ms"],
  axis_deg: ["QRS axis", "°"],
};
const paper = new Paper($("paper"), showCalipers);
const casePaper = new Paper($("case-paper"));
let health = {}, files = [], signals = [], answer = null, chosen = 0, asked = 0, typed = 0, turn = 0;

// --- asking the service ---------------------------------------------------------------------------------------------

async function ask(path, fields = null) {
  const headers = {}, body = fields && new FormData();
  if ($("token").value) headers.Authorization = `Bearer ${$("token").value}`;
  for (const [name, value] of fields || []) body.append(name, value, ...(value instanceof File ? [value.name] : []));
  const found = await fetch(path, { method: fields ? "POST" : "GET", headers, body });
  if (found.ok) return found;
  const problem = await found.json().catch(() => ({ detail: `${path}: ${found.status}` }));
  if (found.status === 401) $("ask-token").hidden = false;
  throw new Error(problem.detail);
}

// The files of the recording that is shown: itself, and what shares its name without the suffix.
function form(all = false) {
  const safe = (name) => name.replace(/[^\p{L}\p{N}_.()+ -]/gu, "_").replace(/^[ .]+|[ .]+$/g, ""); // as the service has it
  const stem = (name) => name.replace(/\.(hea|dat|mat)$/i, "");
  const name = signals[chosen]?.file;
  const own = all || signals.length < 2 ? files : files.filter((file) => stem(safe(file.name)) === stem(name));
  if (!own.length) throw new Error(`${name}: give it as a file of its own for this`);
  const fields = own.map((file) => ["file", file]);
  for (const id of ["fs", "units", "leads"]) if ($(id).value.trim()) fields.push([id, $(id).value.trim()]);
  return fields;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function load(list) {
  files = [...list];
  if (!files.length) return;
  const mine = ++asked;
  turn += 1;
  $("result").hidden = true; // what is shown of earlier files must not go with these
  say(`Reading ${files.map((file) => file.name).join(", ")} …`);
  try {
    signals = [];
    const [drawn, found] = await Promise.all([
      ask("v1/signal", form(true)).then((one) => one.json()),
      ask("v1/classify", form(true)).then((one) => one.json()),
    ]);
    if (mine !== asked) return;
    signals = drawn.recordings;
    answer = found;
    $("result").hidden = false;
    $("several").hidden = signals.length < 2;
    $("recording").replaceChildren(...signals.map((one, i) => new Option(one.file, i)));
    say(`${signals.length > 1 ? `${signals.length} recordings` : signals[0].file} read.`);
    await choose(0);
  } catch (error) {
    if (mine === asked) {
      $("result").hidden = true;
      say(error.message, true);
    }
  }
}

async function choose(number) {
  chosen = number;
  turn += 1;
  const signal = signals[chosen];
  paper.show(signal);
  const there = Object.keys(signal.leads);
  const kept = ["sheet", "rows"].map((value) => $("layout").querySelector(`[value=${value}]`));
  $("layout").replaceChildren(...kept, ...there.map((lead) => new Option(`lead ${lead} alone`, lead)));
  $("layout").value = there.length > 3 ? "sheet" : "rows";
  paper.set({ layout: $("layout").value });
  $("caliper-lead").replaceChildren(...there.map((lead) => new Option(lead, lead)));
  $("caliper-lead").value = there.includes("II") ? "II" : there[0];
  $("caliper").textContent = "no interval chosen";
  $("salient").textContent = "";
  $("clear").hidden = true;
  $("paper-facts").textContent = `25 mm/s, 10 mm/mV; ${signal.fs} Hz, ${signal.duration_s} s`;
  $("paper").setAttribute("aria-label", `ECG of ${signal.duration_s} s, leads ${there.join(", ")}`);
  describe();
  showFindings(FIRST);
  showMeasurements();
  await Promise.all([score(), report(), cases()]);
}

// --- findings -------------------------------------------------------------------------------------------------------

const percent = (share) => (share < 0.001 ? "< 0.1 %" : share > 0.999 ? "> 99.9 %" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);
const recording = () => answer.recordings[chosen];

function meter(value, low, high) {
  const found = document.createElement("meter");
  Object.assign(found, { min: low, max: high, value });
  found.setAttribute("aria-hidden", "true"); // the number beside it says the same
  return found;
}

function scored(finding) {
  if (finding.probability === null) return `cosine ${finding.score.toFixed(3)}`;
  return percent(finding.probability);
}

function ratio({ likelihood_ratio: value }) {
  if (value === null) return "";
  return ` Recordings with the finding score so ${value.toPrecision(2)} times as often as those without.`;
}

function bar(finding) {
  return finding.probability === null ? meter(Math.max(0, finding.score), 0, 1) : meter(finding.probability, 0, 1);
}

function describe() {
  $("kind").textContent = answer.calibrated
    ? "Probability of each finding where it is as common as in the recordings that the model was calibrated on, the most "
      + "probable first. Choose one to see what speaks for it, and its probability where it is rarer or more common."
    : "Cosine, for ranking only: this model is not calibrated. Choose a finding to see what speaks for it.";
  const lacking = recording().missing_leads;
  const lack = lacking.length ? [`Without ${lacking.join(", ")}: expect less, above all of what only they show`] : [];
  lack.push(...recording().warnings);
  $("notes").replaceChildren(...lack.map((note) => element("li", note, "flag")), ...answer.notes.map((note) => element("li", note)));
}

function element(kind, text, className = "") {
  return Object.assign(document.createElement(kind), { textContent: text, className });
}

function showFindings(most) {
  const { findings } = recording();
  $("findings").replaceChildren(...findings.slice(0, most).map((finding) => {
    const button = Object.assign(element("button", ""), { type: "button" });
    button.setAttribute("aria-pressed", "false");
    button.append(element("span", finding.label), element("span", scored(finding), "value"), bar(finding));
    button.addEventListener("click", () => explain(finding, button));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  $("more").hidden = findings.length <= most;
  $("more").textContent = `Show all ${findings.length}`;
}

async function explain(finding, button) {
  const pressed = button.getAttribute("aria-pressed") === "true";
  hide();
  if (pressed) return;
  button.setAttribute("aria-pressed", "true");
  askShare(finding);
  const mine = turn;
  $("salient").textContent = `What speaks for ${finding.label}: hiding parts of the recording one after the other …`;
  try {
    const map = await (await ask("v1/saliency", [...form(), ["label", finding.label]])).json();
    if (mine !== turn || button.getAttribute("aria-pressed") !== "true") return;
    paper.set({ salient: map });
    $("clear").hidden = false;
    const there = Object.entries(map.lead).filter(([lead]) => lead in signals[chosen].leads);
    const leads = there.sort((a, b) => b[1] - a[1]).slice(0, 3);
    const at = map.time.indexOf(Math.max(...map.time)) * map.step_s;
    $("salient").textContent = `${finding.label} rests most on ${leads.map(([lead]) => lead).join(", ")}, and on the time from `
      + `${at.toFixed(1)} s on.${ratio(finding)} Orange: hiding it lowers the score; blue: it speaks against the finding.`;
  } catch (error) {
    if (mine === turn) $("salient").textContent = error.message;
  }
}

// Of a finding, probability = likelihood ratio × odds of how common it is, as odds.
function askShare(finding) {
  const { probability, likelihood_ratio: ratio } = finding;
  $("common").hidden = ratio === null || probability === null || probability >= 1;
  if ($("common").hidden) return;
  const odds = probability / (1 - probability) / ratio;
  $("share").value = (100 * odds / (1 + odds)).toPrecision(3);
  const show = () => {
    const share = $("share").valueAsNumber / 100;
    const here = ratio * share / (1 - share);
    $("posterior").textContent = share > 0 && share < 1
      ? `${finding.label}: ${percent(here / (1 + here))}` : "give a number between 0 and 100";
  };
  $("share").oninput = show;
  show();
}

function hide() {
  paper.set({ salient: null });
  $("common").hidden = true;
  $("salient").textContent = "";
  $("clear").hidden = true;
  for (const button of $("findings").querySelectorAll("[aria-pressed=true]")) button.setAttribute("aria-pressed", "false");
}

async function score() {
  const text = $("text").value.trim(), mine = ++typed;
  if (!text || !signals.length) return void $("answer").replaceChildren();
  try {
    const found = await (await ask("v1/classify", [...form(), ["labels", text]])).json();
    if (mine !== typed) return;
    const [finding] = found.recordings[0].findings;
    const ranking = finding.probability === null ? " (for ranking only)" : ` (cosine ${finding.score.toFixed(3)})`;
    $("answer").replaceChildren(element("span", `${text}: ${scored(finding)}${ranking}`, "value"), bar(finding));
    for (const note of found.notes) $("answer").append(element("small", note, "soft"));
  } catch (error) {
    if (mine === typed) $("answer").textContent = error.message;
  }
}

// --- measurements, report, cases --------------------------------------------------------------------------------------

function showMeasurements() {
  $("measurements").replaceChildren(...Object.entries(NAMES).map(([name, [title, unit]]) => {
    const value = recording().measurements[name], row = document.createElement("tr");
    const head = Object.assign(element("th", title), { scope: "row" });
    row.append(head, element("td", value === null ? "not measurable" : `${Math.round(value)} ${unit}`));
    return row;
  }));
}

// A part is hidden until its answer is there, and an answer for a recording that is no longer shown is left out.
async function part(id, known, path, fields, show) {
  $(id).hidden = true;
  if (!known) return;
  const mine = turn;
  try {
    const found = await (await ask(path, [...form(), ...fields])).json();
    if (mine !== turn) return;
    show(found);
    $(id).hidden = false;
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

const report = () => part("report-part", health.writer, "v1/report", [], ({ recordings: [found] }) => {
  $("report").textContent = found.text + (found.finished ? "" : " … (cut off)");
  const flags = (found.findings || []).map((one) => element(
    "li", one.flag ? `Doubt: the text says ${one.name}, the model does not see it` : `${one.name}: the model agrees`,
    one.flag ? "flag" : "soft",
  ));
  const gaps = (found.left_out || []).map((one) => element(
    "li", `Left out: the model sees ${one.name}, the text does not name it`, "flag",
  ));
  const unknown = element("li", "This writer is not calibrated: doubts cannot be flagged", "soft");
  $("doubts").replaceChildren(...(found.findings === null ? [unknown] : [...flags, ...gaps]));
});

const hasIndex = () => health.index !== null && health.index !== undefined;
const cases = () => part("cases-part", hasIndex(), "v1/search", [["top", "5"]], (found) => {
  $("cases").replaceChildren(...found.cases.map((one) => {
    const { record_id, age, sex, report: text } = one.about;
    const told = [record_id, age && `${age} years`, sex, text].filter(Boolean).join(", ");
    const button = Object.assign(element("button", `${one.score.toFixed(3)}  ${told.slice(0, 140)}`), { type: "button" });
    button.addEventListener("click", () => open(one));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
});

async function open(one) {
  try {
    const [signal] = (await (await ask(`v1/cases/${one.case}`)).json()).recordings;
    $("case-title").textContent = `Case ${one.about.record_id || one.case}`;
    const facts = Object.entries({ "cosine with this recording": one.score.toFixed(3), ...one.about });
    $("case-about").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
    $("case").showModal();
    casePaper.show(signal);
  } catch (error) {
    say(error.message, true);
  }
}

// --- tools ----------------------------------------------------------------------------------------------------------

function showCalipers() {
  const { lead, from, to } = paper.calipers, { ms, mv } = paper.measured();
  Object.assign($("from"), { value: from });
  Object.assign($("to"), { value: to });
  $("caliper-lead").value = lead;
  const rate = ms >= 200 ? ` (${Math.round(60000 / ms)}/min)` : "";
  $("caliper").textContent = `${lead}: ${ms} ms${rate}, ${mv === null ? "no voltage there" : `${mv.toFixed(2)} mV`}`;
}

function setCalipers() {
  paper.set({ calipers: { lead: $("caliper-lead").value, from: Number($("from").value), to: Number($("to").value) } });
  showCalipers();
}

function zoom(factor) {
  paper.set({ zoom: Math.min(6, Math.max(1, paper.zoom * factor)) });
  $("zoom").textContent = `${Math.round(100 * paper.zoom)} %`;
}

function save(blob, suffix) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
  link.download = `${signals[chosen].file.replace(/\.\w+$/, "").replace(/[^\w-]/g, "_")}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function download(path, fields, suffix) {
  try {
    save(await (await ask(path, [...form(), ...fields])).blob(), suffix);
  } catch (error) {
    say(error.message, true);
  }
}

function pdf() {
  const told = recording().findings.slice(0, 4).map((one) => `${one.label} ${scored(one)}`);
  while (told.length > 1 && told.join(", ").length > 120) told.pop(); // what a line of the sheet holds
  const lines = ["Research use, not a diagnosis", told.join(", ").slice(0, 200)];
  return download("v1/plot?format=pdf", lines.map((line) => ["annotations", line]), "pdf");
}

function json() {
  const content = { ...answer, recordings: [recording()] };
  save(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }), "json");
}

async function example() {
  if (!$("example").value) return;
  const found = await fetch(`example/${$("example").value}`);
  await load([new File([await found.blob()], `${$("example").value}.csv`)]);
}

let timer = 0;
const drop = $("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") load(event.dataTransfer.files);
  });
}
$("files").addEventListener("change", () => load($("files").files));
$("example").addEventListener("change", example);
$("recording").addEventListener("change", () => choose(Number($("recording").value)));
for (const id of ["fs", "units", "leads", "token"]) $(id).addEventListener("change", () => load(files));
$("layout").addEventListener("change", () => paper.set({ layout: $("layout").value }));
$("larger").addEventListener("click", () => zoom(1.5));
$("smaller").addEventListener("click", () => zoom(1 / 1.5));
$("clear").addEventListener("click", hide);
$("more").addEventListener("click", () => showFindings(Infinity));
for (const id of ["from", "to", "caliper-lead"]) $(id).addEventListener("input", setCalipers);
$("text").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(score, 300);
});
$("pdf").addEventListener("click", pdf);
$("json").addEventListener("click", json);
$("fhir").addEventListener("click", () => download("v1/classify?format=fhir", [], "fhir.json"));

health = await (await fetch("healthz")).json();
$("about").textContent = `Model ${health.model}, deri ${health.version}`;
