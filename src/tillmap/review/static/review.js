// The page of `tillmap review`. Lines and labels may hold anything, so they only ever become text (textContent): the
// page's policy lets the browser refuse everything else.
"use strict";

const $ = (id) => document.getElementById(id);
const SEPARATOR = " › ";

let about = { levels: [], brand: null, file: "", source: "" };
let place = 0; // of the item that is shown, in the queue
let item = null;
let progress = null;
let found = []; // the paths that the search found
let chosen = -1; // the one that Enter would pick
let busy = false; // while a decision is being saved
let asked = 0; // counts questions, so that a late answer is not taken for the newest one's

// --- The server ---

async function ask(call, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(call, options);
  } catch {
    throw new Error(
      "The server does not answer. Everything that was shown as saved is on the disk. " +
        "Run `tillmap review` again, and open the address that it prints."
    );
  }
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(value.error || `The server answered with an error (${answer.status}).`);
  return value;
}

// Run one change at a time: a key that is pressed twice by mistake must not decide the next row, too.
async function change(call, body, say) {
  if (busy) return;
  busy = true;
  try {
    const value = await ask(call, body);
    $("problem").hidden = true;
    take(value);
    $("said").textContent = say(value);
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  } finally {
    busy = false;
  }
}

function take(value) {
  if (value.about) about = value.about;
  place = value.place;
  item = value.item;
  progress = value.progress;
  draw();
}

// --- What a person can do ---

function decide(labels) {
  const twins = $("twins-too").checked;
  return change("decide", { place, labels, twins }, ({ saved }) => {
    const rows = saved.rows > 1 ? ` (${number(saved.rows)} rows)` : "";
    return `Saved${rows}: ${saved.labels ? written(saved.labels) : "can't tell"}`;
  });
}

function accept() {
  if (item?.answer) decide(item.answer.labels);
}

function pick(position) {
  const candidate = item?.candidates[position];
  if (candidate) decide(candidate.labels);
}

function undo() {
  if (progress.last === null) {
    $("said").textContent = "There is nothing to undo.";
    return;
  }
  change("undo", { number: progress.last }, ({ undone }) =>
    undone ? `Undone: ${undone.labels ? written(undone.labels) : "can't tell"}` : "That was undone before."
  );
}

function move(by) {
  const to = place + by;
  if (to < 0 || to >= progress.items) return;
  change(`show?place=${to}`, undefined, () => "");
}

// --- The search ---

async function search() {
  const question = ++asked;
  choose(-1); // the keys must not pick a path of the earlier query
  found = [];
  const query = $("query").value;
  if (!query.trim()) return showFound([], "");
  try {
    const { paths, total } = await ask(`find?q=${encodeURIComponent(query)}`);
    if (question !== asked) return; // there is a newer question
    const more = total > paths.length ? `, the best ${paths.length} are shown` : "";
    showFound(paths, total ? `${plural(total, "path")}${more}.` : "No path has all these words.");
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
}

function showFound(paths, say) {
  found = paths;
  $("found").replaceChildren(
    ...paths.map((path, position) => {
      const entry = pathElement("li", path);
      entry.id = `found-${position}`;
      entry.setAttribute("role", "option");
      entry.addEventListener("click", () => decide(path.labels));
      return entry;
    })
  );
  $("found").hidden = !paths.length;
  $("query").setAttribute("aria-expanded", String(paths.length > 0));
  $("found-count").textContent = say;
  if (paths.length) $("found-count").append(element("span", "keys", " ↑ and ↓ choose, Enter decides."));
  choose(paths.length ? 0 : -1);
}

function choose(position) {
  chosen = position;
  [...$("found").children].forEach((entry, each) => {
    entry.setAttribute("aria-selected", String(each === chosen));
    if (each === chosen) entry.scrollIntoView({ block: "nearest" });
  });
  if (chosen < 0) $("query").removeAttribute("aria-activedescendant");
  else $("query").setAttribute("aria-activedescendant", `found-${chosen}`);
}

function leaveSearch() {
  ++asked;
  $("query").value = "";
  showFound([], "");
}

// Where the keyboard is when nothing else is chosen: Enter accepts the answer, and the focus shows it.
function rest() {
  const accepts = $("accept");
  if (accepts.offsetParent) accepts.focus({ preventScroll: true });
  else $("text").focus({ preventScroll: true });
}

// --- Drawing ---

function draw() {
  $("main").hidden = false;
  const alike = item.twins_total ? `, ${plural(item.twins_total + 1, "row")} with this line` : "";
  $("place").textContent = `${number(place + 1)} of ${number(progress.items)}${alike}`;
  $("text").textContent = item.text;
  $("facts").replaceChildren(...facts(item));
  $("decided").hidden = !item.decision;
  if (item.decision) {
    const { labels, who, when } = item.decision;
    const by = who ? ` by ${who}` : "";
    const at = new Date(when).toLocaleString();
    $("decided").textContent = `Decided${by}, ${at}: ${labels ? written(labels) : "can't tell"}`;
  }

  $("answer-title").textContent = about.source ? `Answer of ${about.source}` : "Answer";
  $("no-answer").hidden = Boolean(item.answer);
  $("accept").hidden = !item.answer;
  if (item.answer) {
    fill($("answer"), item.answer);
    $("confidence").textContent = percent(item.confidence);
    $("accept").setAttribute(
      "aria-label", `Accept ${written(item.answer.labels)}, ${percent(item.confidence)} sure`
    );
  }

  $("candidates-part").hidden = !item.candidates.length;
  const ranked = item.candidates.some((candidate) => candidate.share !== undefined);
  $("candidates-title").textContent = ranked ? "Other candidates" : "Near the answer";
  $("candidates").replaceChildren(...item.candidates.map(candidateElement));

  $("twins-part").hidden = !item.twins_total;
  $("twins-title").textContent = plural(item.twins_total, "more row") + " with this line";
  $("twins-too").checked = true;
  const others = item.twins_total - item.twins.length;
  $("twins").replaceChildren(
    ...item.twins.map((twin) => {
      const entry = element("li", "", twin.text);
      [twin.retailer, twin.price].filter(Boolean).forEach((fact) => entry.append(element("span", "fact", fact)));
      return entry;
    }),
    ...(others ? [element("li", "fact", `and ${number(others)} more`)] : [])
  );

  $("previous").disabled = place === 0;
  $("next").disabled = place === progress.items - 1;
  $("undo").disabled = progress.last === null;
  drawProgress();
  leaveSearch();
  // Who presses Next or Undo twice must not accept an answer with the second press.
  const stays = [$("previous"), $("next"), $("undo")].includes(document.activeElement);
  if (!stays || document.activeElement.disabled) rest();
  scrollTo(0, 0);
}

function drawProgress() {
  const { rows, decided, pace, usual, gains, total } = progress;
  $("bar").max = rows;
  $("bar").value = decided;
  $("counts").textContent = `${number(decided)} decided, ${number(rows - decided)} left`;
  if (decided === rows) {
    $("forecast").textContent = `All rows are decided. The decisions are in ${about.file}.`;
    return;
  }
  const speed = pace === null ? `an assumed ${number(usual)}` : `your ${number(Math.round(pace))}`;
  const points = gains.map((gain) => `+${(100 * gain).toFixed(100 * gain < 1 ? 2 : 1)}`);
  const hours = ["the next hour", "the hour after", "the third hour"].slice(0, points.length);
  const each = points.map((point, hour) => `${hours[hour]} ${point}`).join(", ");
  $("forecast").textContent =
    `Expected gain in points of accuracy on ${number(total)} rows, at ${speed} decisions an hour: ${each}`;
}

function facts({ retailer, price }) {
  return [["Retailer", retailer], ["Price", price]].filter(([, value]) => value).map(([name, value]) => {
    const fact = element("div", "");
    fact.append(element("dt", "", name), element("dd", "", value));
    return fact;
  });
}

function candidateElement(path, position) {
  const entry = document.createElement("li");
  const button = element("button", "");
  button.type = "button";
  button.setAttribute("aria-keyshortcuts", String(position + 1));
  button.append(element("kbd", "", String(position + 1)), pathElement("span", path));
  if (path.share !== undefined) button.append(element("span", "share", percent(path.share)));
  button.addEventListener("click", () => pick(position));
  entry.append(button);
  return entry;
}

function pathElement(tag, path) {
  const part = element(tag, "path");
  fill(part, path);
  return part;
}

// The labels above in small letters, then the last one, and the brand beside it: these are what a person looks for.
function fill(part, { labels, code, known }) {
  const chain = (about.brand ? labels.slice(0, -1) : labels).filter(Boolean);
  const brand = about.brand ? labels.at(-1) : "";
  const above = chain.slice(0, -1).join(SEPARATOR);
  const last = [chain.at(-1), brand].filter(Boolean).join(SEPARATOR);
  part.replaceChildren(element("span", "label", last));
  if (above) part.prepend(element("span", "above", above));
  if (code) part.append(element("span", "code", code));
  // Such as a brand that no labelled row of this module has.
  if (!known) part.append(element("span", "new", "not a known path"));
}

function element(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) {
    made.textContent = text;
    made.dir = "auto"; // a line in Arabic or Hebrew does not turn the rest around
  }
  return made;
}

const written = (labels) => labels.filter(Boolean).join(SEPARATOR);
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)}%`;
const number = (value) => value.toLocaleString("en");
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

// --- Keys and buttons ---

const KEYS = {
  x: () => decide(null),
  u: undo,
  j: () => move(1),
  k: () => move(-1),
  t: () => { if (!$("twins-part").hidden) $("twins-too").checked = !$("twins-too").checked; },
  "/": () => $("query").focus(),
  Enter: accept,
  Escape: rest,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  const { key, target } = event;
  const moves = key === "j" || key === "k" || key.startsWith("Arrow") || key === "Tab" || target === $("query");
  if (event.repeat && (!moves || key === "Enter")) return event.preventDefault(); // a held key decides one row only
  if (target === $("query")) return searchKey(event);
  if (key === "Enter" && (target.tagName === "BUTTON" || target.tagName === "INPUT")) return; // the browser presses it
  if (/^[1-9]$/.test(key)) pick(Number(key) - 1);
  else if (Object.hasOwn(KEYS, key)) KEYS[key]();
  else return;
  event.preventDefault();
});

function searchKey(event) {
  const { key } = event;
  if (key === "Escape") {
    leaveSearch();
    rest();
  } else if (key === "ArrowDown" && found.length) choose((chosen + 1) % found.length);
  else if (key === "ArrowUp" && found.length) choose((chosen - 1 + found.length) % found.length);
  else if (key === "Enter" && chosen >= 0) decide(found[chosen].labels);
  else return;
  event.preventDefault();
}

$("query").addEventListener("input", search);
$("accept").addEventListener("click", accept);
$("unsure").addEventListener("click", () => decide(null));
$("undo").addEventListener("click", undo);
$("next").addEventListener("click", () => move(1));
$("previous").addEventListener("click", () => move(-1));

change("start", undefined, () => "");
