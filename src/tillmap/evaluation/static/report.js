// The lists of rows and of suspicious labels. Lines, labels and answers may hold anything, so they only ever become text (textContent).
"use strict";

const $ = (id) => document.getElementById(id);
const { rows: data, labels: audit } = JSON.parse($("data").textContent);
const SEPARATOR = " › ";
const AT_ONCE = 50;
const PERSON = { changed: "a person changed it", confirmed: "a person confirmed it", added: "a person gave it" };

const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
const counted = (value) => value.toLocaleString("en");
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// A list that shows some entries, and more on demand. Gives a function that shows other rows.
function listOf(list, button, entry) {
  let found = [];
  const more = () => {
    const shown = list.childElementCount;
    list.append(...found.slice(shown, shown + AT_ONCE).map(entry));
    button.hidden = list.childElementCount >= found.length;
  };
  button.addEventListener("click", more);
  return (rows) => {
    found = rows;
    list.replaceChildren();
    more();
  };
}

// Which rows have all words of a search field, in the line or in a label.
function matcher(rows, paths, numbers) {
  for (const row of rows) {
    const labels = numbers(row).filter((number) => number !== null).flatMap((number) => paths[number].filter(Boolean));
    row.words = plain([row.id, row.text, row.retailer, ...labels].join("\n"));
  }
  return (row, query) => plain(query).split(/\s+/).filter(Boolean).every((word) => row.words.includes(word));
}

// --- Elements ---

function element(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside); // texts become text nodes
  return made;
}

// A path, with the labels marked that are wrong.
function pathOf(labels, right) {
  const made = element("span", "path");
  made.dir = "auto";
  labels.forEach((label, level) => {
    const wrong = right && !right[level];
    if (!label && !wrong) return;
    if (made.childNodes.length) made.append(SEPARATOR);
    made.append(wrong ? element("span", "wrong-label", label || "(none)") : label);
  });
  if (!made.childNodes.length) made.append("(none)");
  return made;
}

const path = (number, right) => pathOf(data.paths[number], right);

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
  return opening(made, head, () => everything(row));
}

// An entry whose head is a button that shows the rest.
function opening(made, head, rest) {
  head.type = "button";
  head.setAttribute("aria-expanded", "false");
  head.addEventListener("click", () => {
    const open = head.getAttribute("aria-expanded") === "true";
    head.setAttribute("aria-expanded", String(!open));
    if (open) made.lastChild.remove();
    else made.append(rest());
  });
  made.append(head);
  return made;
}

const factsOf = ({ id, split, retailer, price }) =>
  [id && `id ${id}`, split, retailer, price !== null && `price ${price}`].filter(Boolean).join(", ");

function everything(row) {
  const made = element("div", "more");
  const truth = element("p", "full", element("span", "muted", factsOf(row)));
  truth.append(element("br"), "truth: ", row.truth === null ? "not known" : path(row.truth));
  if (row.corrected) truth.append(element("span", "muted", ` (${PERSON[row.corrected]})`));
  made.append(truth, answersOf(row));
  made.append(nearest("Nearest training rows, by spelling", row.near, data.paths));
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
  return element("div", "full table answers", table);
}

const nearest = (title, near, paths) =>
  part(title, near, ([id, text, number, score]) => [
    element("span", "", line(text), element("br"), pathOf(paths[number]), element("span", "muted", ` (id ${id})`)),
    score.toFixed(2),
  ]);

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

// --- The list of rows ---

const hasWords = matcher(data.rows, data.paths, (row) => [row.truth, ...Object.values(row.answers).map((each) => each.path)]);
const showRows = listOf($("list"), $("more"), entry);

function passes(row) {
  const answer = row.answers[$("arm").value];
  if (!answer || !hasWords(row, $("search").value)) return false;
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
  const found = data.rows.filter(passes).sort((one, other) => order(one) - order(other));
  const asked = data.rows.filter((row) => row.answers[arm]).length;
  const rest = asked < data.rows.length ? ` ${arm} was asked about ${counted(asked)} of them.` : "";
  $("count").textContent = `${counted(found.length)} of ${counted(data.rows.length)} rows.${rest}`;
  showRows(found);
}

const repairs = new Set(data.rows.flatMap((row) => Object.values(row.answers).map(({ repair }) => repair)));
for (const kind of [...repairs].sort()) $("repair").append(new Option(kind));
for (const name of ["search", "arm", "result", "repair", "set"]) $(name).addEventListener("input", search);
$("filters").addEventListener("submit", (event) => event.preventDefault());
search();

// --- The list of suspicious labels ---

function suspect(row) {
  const given = audit.paths[row.given];
  const guess = audit.paths[row.guess];
  const head = element("button", "head", line(row.text), pathOf(given, given.map((label, level) => label === guess[level])));
  head.append(element("span", "sure", percent(row.confidence)), element("span", "truth", "perhaps: ", pathOf(guess)));
  return opening(element("li", ""), head, () => evidence(row));
}

function evidence(row) {
  const says = [["the model, trained without it", row.model], ["similar lines of other products", row.votes]];
  const body = element("tbody");
  for (const [who, [own, guess]] of says) {
    body.append(element("tr", "", element("th", "", who), element("td", "n", percent(own)), element("td", "n", percent(guess))));
  }
  const [who, own, guess] = ["", "this label", "the other"].map((name) => element("th", name && "n", name));
  const table = element("table", "", element("thead", "", element("tr", "", who, own, guess)), body);
  const made = element("div", "more", element("p", "full muted", `${factsOf(row)}; looks wrong from ${row.level} on`));
  made.append(element("div", "table", table), nearest("Most similar lines of other products", row.near, audit.paths));
  return made;
}

if (audit?.rows.length) {
  const hasWords = matcher(audit.rows, audit.paths, (row) => [row.given, row.guess]);
  const showLabels = listOf($("label-list"), $("label-more"), suspect);
  const search = () => {
    const [query, level] = [$("label-search").value, $("label-level").value];
    const found = audit.rows.filter((row) => hasWords(row, query) && (!level || row.level === level));
    $("label-count").textContent = `${counted(found.length)} of ${counted(audit.rows.length)} labels.`;
    showLabels(found);
  };
  for (const name of ["label-search", "label-level"]) $(name).addEventListener("input", search);
  $("label-filters").addEventListener("submit", (event) => event.preventDefault());
  search();
}
