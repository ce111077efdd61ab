// The list of rows. Lines, labels and answers may hold anything, so they only ever become text (textContent).
"use strict";

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const SEPARATOR = " › ";
const AT_ONCE = 50;
const PERSON = { changed: "a person changed it", confirmed: "a person confirmed it", added: "a person gave it" };
let found = []; // the rows that pass the filters, in order
let shown = 0;

const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
const labels = (number) => data.paths[number].filter(Boolean);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

for (const row of data.rows) {
  const numbers = [row.truth, ...Object.values(row.answers).map((answer) => answer.path)].filter((n) => n !== null);
  row.words = plain([row.id, row.text, row.retailer, ...numbers.flatMap(labels)].join("\n"));
}

// --- Elements ---

function element(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside); // texts become text nodes
  return made;
}

// A path, with the labels marked that are wrong.
function path(number, right) {
  const made = element("span", "path");
  made.dir = "auto";
  data.paths[number].forEach((label, level) => {
    const wrong = right && !right[level];
    if (!label && !wrong) return;
    if (made.childNodes.length) made.append(SEPARATOR);
    made.append(wrong ? element("span", "wrong-label", label || "(none)") : label);
  });
  if (!made.childNodes.length) made.append("(none)");
  return made;
}

function line(text) {
  const made = element("span", "line", text);
  made.dir = "auto";
  return made;
}

// --- One row ---

const isRight = (answer) => answer.right && answer.right.every(Boolean);

function entry(row) {
  const answer = row.answers[$("arm").value];
  const made = element("li", answer.right ? (isRight(answer) ? "right" : "wrong") : "");
  const head = element("button", "head", line(row.text), path(answer.path, answer.right));
  head.append(element("span", "sure", percent(answer.confidence)));
  if (answer.right && !isRight(answer)) head.append(element("span", "truth", "right: ", path(row.truth)));
  head.type = "button";
  head.setAttribute("aria-expanded", "false");
  head.addEventListener("click", () => {
    const open = head.getAttribute("aria-expanded") === "true";
    head.setAttribute("aria-expanded", String(!open));
    if (open) made.lastChild.remove();
    else made.append(everything(row));
  });
  made.append(head);
  return made;
}

function everything(row) {
  const made = element("div", "more");
  const facts = [row.id && `id ${row.id}`, row.split, row.retailer, row.price !== null && `price ${row.price}`];
  const truth = element("p", "full", element("span", "muted", facts.filter(Boolean).join(", ")));
  truth.append(element("br"), "truth: ", row.truth === null ? "not known" : path(row.truth));
  if (row.corrected) truth.append(element("span", "muted", ` (${PERSON[row.corrected]})`));
  made.append(truth, answersOf(row));
  made.append(part("Nearest training rows, by spelling", row.near, ([id, text, number, score]) => [
    element("span", "", line(text), element("br"), path(number), element("span", "muted", ` (id ${id})`)),
    score.toFixed(2),
  ]));
  for (const [arm, answer] of Object.entries(row.answers)) {
    if (answer.candidates?.length) {
      made.append(part(`Candidates of ${arm}`, answer.candidates, ([named, share]) => [
        typeof named === "number" ? path(named) : element("span", "path", named),
        percent(share),
      ]));
    }
  }
  for (const arm of data.asks_model) if (row.answers[arm]) made.append(conversation(arm, row.answers[arm]));
  return made;
}

function answersOf(row) {
  const body = element("tbody");
  for (const arm of data.arms.filter((arm) => row.answers[arm])) {
    const { path: number, right, confidence, repair, status } = row.answers[arm];
    const done = status === "ok" ? repair : `${repair} (${status})`;
    const cells = [element("td", "", path(number, right)), element("td", "n", percent(confidence)), element("td", "", done)];
    body.append(element("tr", "", element("th", "", arm), ...cells));
  }
  const names = ["arm", "answer", "confidence", "repair"].map((name) => element("th", "", name));
  const table = element("table", "", element("thead", "", element("tr", "", ...names)), body);
  return element("div", "full table", table);
}

function part(title, items, cells) {
  const made = element("div", "", element("h3", "", title));
  const list = element("ul");
  for (const item of items) {
    const [first, second] = cells(item);
    list.append(element("li", "", first, element("span", "sure", second)));
  }
  made.append(items.length ? list : "none");
  return made;
}

function conversation(arm, answer) {
  const made = element("div", "full", element("h3", "", `What ${arm} was asked and said`));
  const say = (role, text) => made.append(element("div", "message", element("span", "muted", role), element("pre", "", text)));
  if (answer.prompt) for (const [role, number] of answer.prompt) say(role, data.texts[number]);
  else made.append(element("p", "muted", "The prompt is left out, to keep this file small."));
  say("raw answer", answer.raw ?? "");
  if (answer.error) say("error", answer.error);
  return made;
}

// --- The list ---

function passes(row) {
  const answer = row.answers[$("arm").value];
  if (!answer) return false;
  const words = plain($("search").value).split(/\s+/).filter(Boolean);
  if (!words.every((word) => row.words.includes(word))) return false;
  if ($("repair").value && answer.repair !== $("repair").value) return false;
  if ($("set").value !== "all" && row.scored !== ($("set").value === "scored")) return false;
  const [result, level] = $("result").value.split(" ");
  switch (result) {
    case "wrong": return Boolean(answer.right) && !isRight(answer);
    case "right": return Boolean(isRight(answer));
    case "unlabelled": return !answer.right;
    case "apart": return new Set(Object.values(row.answers).map(({ path }) => path)).size > 1;
    case "level": return Boolean(answer.right) && !answer.right[Number(level)];
    default: return true;
  }
}

function search() {
  const arm = $("arm").value;
  // The wrong rows first, the surest on top; then the least sure.
  const order = ({ answers: { [arm]: answer } }) =>
    answer.right && !isRight(answer) ? -1 - answer.confidence : answer.confidence;
  found = data.rows.filter(passes).sort((one, other) => order(one) - order(other));
  const asked = data.rows.filter((row) => row.answers[arm]).length;
  const rest = asked < data.rows.length ? ` ${arm} was asked about ${asked.toLocaleString("en")} of them.` : "";
  $("count").textContent = `${found.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} rows.${rest}`;
  shown = 0;
  $("list").replaceChildren();
  more();
}

function more() {
  const next = found.slice(shown, shown + AT_ONCE);
  $("list").append(...next.map(entry));
  shown += next.length;
  $("more").hidden = shown >= found.length;
}

const repairs = new Set(data.rows.flatMap((row) => Object.values(row.answers).map(({ repair }) => repair)));
for (const kind of [...repairs].sort()) $("repair").append(new Option(kind));
for (const name of ["search", "arm", "result", "repair", "set"]) $(name).addEventListener("input", search);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", more);
search();
