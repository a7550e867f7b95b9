// The page: what is chosen, and what follows.

const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const HANDLE_STEP = 0.05; // of a key; with Shift a fifth

const state = {
  replicate: 0, surface: 0, metric: "nll", split: "test",
  point: 0, slice: 0, members: [], line: [[0, 0], [1, 1]],
  isLog: null, isSame: false, cost: "images_backward",
};
let view = null; // of the map that is drawn
let lattice = null;
const opened = new Map(); // blob -> predictions

const replicate = () => DATA.replicates[state.replicate];
const surface = () => replicate().surfaces[state.surface];
const ofSplit = () => surface().splits[state.split];
const valuesOf = (metric, split = state.split) => surface().splits[split].points[metric];
const cornerCount = () => surface().corners.length;

// --- building elements ----------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function drawn(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function fillTable(element, head, rows) {
  const line = (cells, tag, scopes) => cells.map((cell, i) => {
    const isHead = tag === "th" || i === 0;
    return make(isHead ? "th" : "td", isHead ? { scope: scopes } : {}, cell);
  });
  element.replaceChildren(
    make("thead", {}, make("tr", {}, ...line(head, "th", "col"))),
    make("tbody", {}, ...rows.map(({ cells, isChosen }) => make("tr", { class: isChosen ? "chosen" : "" }, ...line(cells, "td", "row")))),
  );
}

function say(text) {
  $("said").textContent = text;
}

function choices(id, names, key) {
  const boxes = names.map((name) => make("label", {},
    make("input", { type: "radio", name: id, value: name, checked: name === state[key], onchange: () => choose({ [key]: name }) }),
    make("span", {}, name)));
  $(id).replaceChildren($(id).firstElementChild, make("div", { class: "choices" }, ...boxes));
}

// --- words ----------------------------------------------------------------------------------------

const place = (at) => surface().axes.map((axis, i) => `${axis} ${Number(at[i].toFixed(3))}`).join(", ");

// Networks have numbers: the corners as trained, then the points.
function networkOf(n) {
  const corner = surface().atCorner.indexOf(n);
  return corner >= 0 ? corner : cornerCount() + n;
}

function networkName(network) {
  if (network < cornerCount()) return `corner ${surface().corners[network].name}`;
  return surface().points[network - cornerCount()].map((x) => Number(x.toFixed(3))).join(", ");
}

const pointOf = (network) => (network < cornerCount() ? surface().atCorner[network] : network - cornerCount());

function pointTitle(n) {
  if (surface().isDiscrete) return surface().atCorner.includes(n) ? networkName(networkOf(n)) : "mean of the corners";
  const corner = surface().atCorner.includes(n) ? `, ${networkName(networkOf(n))}` : "";
  return place(surface().points[n]) + corner;
}

function hoverText(n) {
  const lines = replicate().metrics.map((metric) => `${metric} ${format(metric, valuesOf(metric)[n])}`);
  const here = surface().marks.filter((mark) => mark.point === n).map((mark) => mark.label);
  return [`<b>${pointTitle(n)}</b>`, ...here, `${state.split}, n = ${ofSplit().n.toLocaleString("en")}`, ...lines].join("<br>");
}

function announce() {
  const text = replicate().metrics.map((metric) => `${metric} ${format(metric, valuesOf(metric)[state.point])}`).join(", ");
  const isMember = state.members.includes(networkOf(state.point));
  say(`${pointTitle(state.point)}: ${text} on ${state.split}${isMember ? "; in the ensemble" : ""}`);
}

// --- what is chosen -------------------------------------------------------------------------------

function isCached(network) {
  return surface().predictions?.networks.includes(network) ?? false;
}

function choose(changes) {
  Object.assign(state, changes);
  if ("replicate" in changes || "surface" in changes) enterSurface();
  writeAddress();
  drawAll();
}

function enterSurface() {
  const names = replicate().surfaces.map((one) => one.name);
  state.surface = Math.min(Math.max(state.surface, 0), names.length - 1);
  if (!replicate().metrics.includes(state.metric)) state.metric = replicate().metrics[0];
  if (!(state.split in surface().splits)) state.split = Object.keys(surface().splits).at(-1);
  lattice = surface().axes.length > 1 ? new Lattice(surface()) : null;
  const best = surface().marks.find((mark) => mark.kind === "best-point")?.point;
  state.point = best ?? 0;
  state.slice = lattice?.dims === 3 ? lattice.index(surface().points[state.point])[2] : 0;
  state.line = lattice ? [[0, 0], lattice.clip([1, 1], state.slice)] : [[0, 0], [1, 1]];
  if (lattice?.isSimplex) state.line = [[0, 0], [lattice.room(state.slice) / 2, lattice.room(state.slice) / 2]];
  const corners = [...surface().corners.keys()];
  state.members = corners.every(isCached) ? corners : [];
  state.isLog = null;
  fillControls();
}

function toggle(n) {
  if (state.point !== n) moveTo(n, false);
  const network = networkOf(n);
  if (state.members.includes(network)) {
    state.members = state.members.filter((one) => one !== network);
  } else if (isCached(network)) {
    state.members = [...state.members, network];
  } else {
    say(`${pointTitle(n)} can't be taken: this page has no predictions of it`);
    return;
  }
  const word = state.members.includes(network) ? "taken into" : "left out of";
  say(`${pointTitle(n)} ${word} the ensemble of ${state.members.length}`);
  membersChanged();
}

function setMembers(members) {
  state.members = members;
  membersChanged();
}

function membersChanged() {
  drawOverlay();
  fillEnsemble();
  soon(drawReliefNow);
}

function moveTo(n, isSaid = true) {
  if (n === undefined || n === state.point) return;
  state.point = n;
  if (lattice?.dims === 3) {
    const k = lattice.index(surface().points[n])[2];
    if (k !== state.slice) {
      state.slice = k;
      state.line = state.line.map((end) => lattice.clip(end, k));
      drawMapNow();
      drawProfileNow();
    }
  }
  fillPoint();
  drawOverlay();
  soon(drawReliefNow);
  if (isSaid) announce();
}

// Once per frame, however often it is asked for.
const asked = new Set();
function soon(draw) {
  if (asked.has(draw)) return;
  asked.add(draw);
  requestAnimationFrame(() => { asked.delete(draw); draw(); });
}

function writeAddress() {
  const { experiment, replicate: number } = replicate();
  const words = new URLSearchParams({ experiment, replicate: number, surface: surface().name, metric: state.metric, split: state.split });
  history.replaceState(null, "", `#${words}`);
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const found = DATA.replicates.findIndex((one) => one.experiment === words.get("experiment") && [String(one.replicate), null].includes(words.get("replicate")));
  state.replicate = Math.max(found, 0);
  const names = replicate().surfaces.map((one) => one.name);
  // What a surface is about comes best from one that is fitted.
  const fitted = replicate().surfaces.findIndex((one) => one.about.includes("fitted"));
  state.surface = names.indexOf(words.get("surface"));
  if (state.surface < 0) state.surface = Math.max(fitted, 0);
  if (words.get("metric") in MEASURES) state.metric = words.get("metric");
  if (words.has("split")) state.split = words.get("split");
}

// --- filling the page -----------------------------------------------------------------------------

function fillControls() {
  const several = DATA.replicates.some((one) => one.replicate > 0);
  $("experiment").replaceChildren(...DATA.replicates.map((one, k) =>
    make("option", { value: String(k), selected: k === state.replicate }, one.experiment + (several ? `, replicate ${one.replicate}` : ""))));
  $("surface").replaceChildren(...replicate().surfaces.map((one, k) =>
    make("option", { value: String(k), selected: k === state.surface }, one.name)));
  choices("metric", replicate().metrics, "metric");
  choices("split", Object.keys(surface().splits), "split");
  $("slice-label").hidden = lattice?.dims !== 3;
  $("slice").max = String(lattice?.steps ?? 0);
  $("about").textContent = `${surface().name}: a ${surface().about}`;
}

function fillFacts() {
  const test = (metric) => surface().barrier.find((row) => row.split === "test" && row.metric === metric);
  const error = test("error");
  const merged = (kind) => surface().marks.find((mark) => mark.kind === kind)?.test.accuracy;
  const points = surface().ensembles.find((one) => one.label.endsWith("picked on val"));
  const corners = surface().ensembles.find((one) => one.isCorners);
  const percent = (value) => format("accuracy", value);
  const facts = [
    ["corners, mean accuracy", error && percent(1 - error.corner_mean_own), surface().areCorners],
    ...(surface().isDiscrete ? [] : [
      ["worst point", error && percent(1 - error.max), error && `found by ${error.found}`],
      ["surface, mean", error && percent(1 - error.mean), "over all of it"],
      ["center", merged("center") !== undefined && percent(merged("center")), "fixed in advance"],
      ["best point", merged("best-point") !== undefined && percent(merged("best-point")), "picked on val"],
      [points?.label, points && percent(points.accuracy), "ensemble"],
    ]),
    [corners?.label, corners && percent(corners.accuracy), "ensemble"],
    ["barrier", !surface().isDiscrete && test("nll")?.barrier?.toFixed(3), "nats"],
  ];
  $("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value, more]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value, " ", make("small", {}, more)))));
}

function fillPoint() {
  const metrics = replicate().metrics;
  const corner = surface().atCorner.indexOf(state.point);
  const rows = [];
  for (const [split, of] of Object.entries(surface().splits)) {
    const { areCorners, statistics } = surface();
    const words = corner < 0 ? "" : `, ${statistics || areCorners}`; // one row where there is but one evaluation
    if (corner >= 0 && statistics) rows.push({ cells: [`${split}, ${areCorners}`, ...metrics.map((metric) => format(metric, of.corners[metric][corner])), of.n.toLocaleString("en")] });
    rows.push({
      cells: [split + words, ...metrics.map((metric) => format(metric, of.points[metric][state.point])), of.n.toLocaleString("en")],
      isChosen: split === state.split,
    });
  }
  fillTable($("point"), [pointTitle(state.point), ...metrics, "n"], rows);
}

function same(a, b) {
  return a.length === b.length && a.every((one) => b.includes(one));
}

let asking = 0;
async function fillEnsemble() {
  const current = ++asking;
  const members = [...state.members];
  $("members").replaceChildren(...(members.length ? members.map((network) => make("li", {}, make("button", {
    type: "button", "aria-label": `leave out ${networkName(network)}`,
    onclick: () => { setMembers(state.members.filter((one) => one !== network)); say(`${networkName(network)} left out`); },
  }, `${networkName(network)} ×`))) : [make("li", { class: "none" }, "none chosen: click points of the map")]));
  const { predictions } = surface();
  fillEnsembleTable(members, null);
  if (!members.length || !predictions) return;
  if (!opened.has(predictions.blob)) opened.set(predictions.blob, Predictions.open(predictions.blob));
  const found = await (await opened.get(predictions.blob)).evaluate(members);
  if (current === asking) fillEnsembleTable(members, found); // else another choice was made meanwhile
}

function fillEnsembleTable(members, found) {
  const scores = ["accuracy", "nll", "ece"];
  const cells = (of) => scores.map((metric) => (of ? format(metric, of[metric]) : "–"));
  const listed = surface().ensembles.filter((one) => one.label);
  const rows = [{ cells: [`chosen here: ${members.length}`, ...cells(found)], isChosen: true }];
  for (const one of listed) {
    const take = make("button", { type: "button", disabled: !one.members.every(isCached), onclick: () => { setMembers(one.members); say(`${one.label}: taken`); } }, one.label);
    rows.push({ cells: [take, ...cells(one)] });
  }
  fillTable($("ensemble"), ["on test", ...scores], rows);
  $("ensemble").dataset.members = found ? members.join() : "";
  $("ensemble-note").textContent = ensembleNote(surface().predictions, listed.find((one) => same(one.members, members)), found);
}

function ensembleNote(predictions, row, found) {
  if (!predictions) return "This page holds no predictions of this surface: the ensembles are those of the table.";
  if (!predictions.networks.length) return "Predictions of this surface have no room in the page: the ensembles are those of the table.";
  const cached = predictions.networks.length;
  const all = cornerCount() + surface().points.length - surface().atCorner.length;
  const some = cached < all && !surface().isDiscrete ? `, of ${cached} of ${all} networks (larger dots): the corners, what tables name, and a coarser grid` : "";
  const { errors } = predictions;
  const points = (x) => (100 * x).toFixed(2);
  const sure = errors.rows ? ` Over the ${errors.rows} ensembles of the table that can be made of them this differs by at most ${points(errors.accuracy)} points of accuracy, ${errors.nll.toFixed(4)} nats and ${points(errors.ece)} points of ece.` : "";
  const here = row && found ? ` This one: ${points(Math.abs(found.accuracy - row.accuracy))} points, ${Math.abs(found.nll - row.nll).toFixed(4)} nats.` : "";
  return `Mean of the members' probabilities, computed in this page on all ${predictions.images.toLocaleString("en")} test images from probabilities rounded to multiples of 1/${predictions.steps}${some}. Corners: ${surface().areCorners}.${sure}${here} The rows below the first are the table's own.`;
}

function fillBarrier() {
  const rows = surface().barrier;
  const parts = partsOf(surface());
  $("barrier-card").hidden = surface().isDiscrete;
  if (surface().isDiscrete) return;
  drawBarrier($("barrier"), rows, parts, state.metric === "accuracy" ? "error" : "nll");
  $("barrier").setAttribute("aria-label", "Bars of the parts of the barrier; the table below has the numbers");
  fillTable($("barrier-table"), ["", ...parts.map(([, label]) => label), "barrier"], rows.map((row) => ({
    cells: [`${row.split}, ${row.metric}`, ...[...parts.map(([part]) => part), "barrier"].map((part) =>
      (row[part] === null ? "no number" : row.metric === "error" ? `${(100 * row[part]).toFixed(2)} %` : row[part].toFixed(4)))],
  })));
}

function fillRivals() {
  const split = state.split === "val" ? "val" : "test"; // on train there are none
  const rows = replicate().rivals.filter((row) => row.split === split);
  $("rivals-card").hidden = rows.length === 0;
  if (!rows.length) return;
  $("rivals-title").textContent = `At equal cost, on ${split}`;
  const { front, far } = drawRivals($("rivals"), rows, state.metric, state.cost);
  $("rivals").setAttribute("aria-label", `${rows.length} methods by cost; on the front: ${front.map((row) => row.method).join(", ")}${far ? `; ${far} worse ones are out of view` : ""}`);
  fillTable($("rivals-table"), [`on ${split}`, "images backward", "forward passes", "accuracy", "nll", "ece"], front.map((row) => ({
    cells: [row.method, row.images_backward.toLocaleString("en"), String(row.forward_passes), format("accuracy", row.accuracy), format("nll", row.nll), format("ece", row.ece)],
  })));
}

function fillPoints() {
  if (!$("points-details").open) return;
  const { metrics } = replicate();
  fillTable($("points"), [`on ${state.split}`, ...metrics, ""], surface().points.map((_, n) => {
    const isMember = state.members.includes(networkOf(n));
    const take = make("button", { type: "button", disabled: !isCached(networkOf(n)), onclick: () => { toggle(n); fillPoints(); } }, isMember ? "leave out" : "take");
    return { cells: [pointTitle(n), ...metrics.map((metric) => format(metric, valuesOf(metric)[n])), take], isChosen: isMember };
  }));
}

// --- drawing --------------------------------------------------------------------------------------

function currentScale() {
  const shown = state.isSame ? replicate().surfaces : [surface()];
  const values = shown.flatMap((one) => one.splits[state.split]?.points[state.metric] ?? []);
  const known = values.filter((value) => value !== null && (state.metric === "accuracy" || value > 0));
  const isWide = state.metric === "nll" && Math.max(...known) > 30 * Math.min(...known);
  const isLog = state.isLog ?? isWide;
  $("log").checked = isLog;
  return new Scale(state.metric, isLog, values, ofSplit().n);
}

function drawMapNow() {
  const scale = currentScale();
  const values = valuesOf(state.metric);
  const corners = surface().corners.map((corner) => ({ ...corner, kind: "corner" }));
  view = drawMap($("map"), {
    surface: surface(), lattice, k: state.slice, values, scale, hover: hoverText,
    canJoin: (n) => isCached(networkOf(n)), marks: [...corners, ...surface().marks],
  });
  $("map").setAttribute("aria-label", `${state.metric} of ${surface().name} on ${state.split}, ${surface().points.length} points`);
  const shown = [["corner", "corner"], ...surface().marks.map((mark) => [mark.kind, mark.label])];
  $("key").replaceChildren(...shown.map(([kind, label]) => make("li", {}, make("b", { "aria-hidden": "true" }, MARKS[kind].sign), label)),
    make("li", {}, make("b", { "aria-hidden": "true" }, "◎"), "in the ensemble"));
  $("slice-text").textContent = lattice?.dims === 3 ? `${surface().axes[2]} = ${Number((state.slice / lattice.steps).toFixed(3))}` : "";
  $("slice").value = String(state.slice);
  drawOverlay();
  // Plotly's own handlers are there once something is drawn.
  if (!$("map").dataset.listens) {
    $("map").dataset.listens = "yes";
    listen($("map"));
  }
}

function listen(element) {
  const number = (event) => event.points.find((point) => point.customdata !== undefined)?.customdata;
  element.on("plotly_hover", (event) => moveTo(number(event), false));
  element.on("plotly_click", (event) => { const n = number(event); if (n !== undefined) toggle(n); });
}

function drawReliefNow() {
  if (!lattice) return;
  drawRelief($("relief"), {
    surface: surface(), lattice, k: state.slice, values: valuesOf(state.metric), scale: currentScale(), hover: hoverText,
    spots: { members: state.members.map(pointOf), point: state.point },
  });
  $("relief").setAttribute("aria-label", `Relief of ${state.metric} over ${surface().axes.join(" and ")}; the map has the same values`);
  if (!$("relief").dataset.listens) {
    $("relief").dataset.listens = "yes";
    listen($("relief"));
  }
}

function drawProfileNow() {
  if (!lattice) return;
  const [a, b] = state.line;
  const along = Array.from({ length: 121 }, (_, i) => i / 120);
  const splits = {};
  for (const [split, of] of Object.entries(surface().splits)) {
    splits[split] = along.map((t) => lattice.value(of.points[state.metric], [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])], state.slice));
  }
  const own = ofSplit().corners[state.metric];
  const corners = own.includes(null) ? NaN : own.reduce((sum, value) => sum + value, 0) / own.length;
  drawProfile($("profile"), { along, splits, shown: state.split, scale: currentScale(), corners });
  const ends = state.line.map(([u, v]) => `(${u.toFixed(2)}, ${v.toFixed(2)})`);
  const found = splits[state.split].filter(Number.isFinite);
  const range = found.length ? ` On ${state.split} from ${format(state.metric, Math.min(...found))} to ${format(state.metric, Math.max(...found))}.` : "";
  $("profile").setAttribute("aria-label", `${state.metric} from ${ends[0]} to ${ends[1]}.${range}`);
  const how = lattice.isSimplex ? "linearly within the triangles" : "bilinearly within the cells";
  $("profile-note").textContent = `From A ${ends[0]} to B ${ends[1]}; drag the ends on the map, or focus one and use the arrow keys (Shift for small steps). Interpolated ${how} of the grid: nothing between its points was evaluated.${range}`;
}

function drawOverlay() {
  const pixel = (n) => view.places[n] && view.pixel(view.places[n]);
  const parts = [];
  const ring = (n, name, radius) => {
    const at = n === undefined ? null : pixel(n);
    if (at && at.every(Number.isFinite)) for (let k = 0; k < 2; k++) parts.push(drawn("circle", { class: name, cx: at[0], cy: at[1], r: radius }));
  };
  if (lattice) {
    const [[x1, y1], [x2, y2]] = state.line.map(view.pixel);
    for (let k = 0; k < 2; k++) parts.push(drawn("line", { class: "line", x1, y1, x2, y2 }));
  }
  state.members.map(pointOf).forEach((n) => ring(n, "member", 8));
  ring(state.point, "cursor", 5);
  const overlay = $("overlay");
  overlay.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
  overlay.style.width = `${view.width}px`;
  overlay.style.height = `${view.height}px`;
  // Handles stay, so that one that is dragged or has the focus keeps it.
  const handles = lattice ? handleElements() : [];
  for (const old of [...overlay.children]) if (!handles.includes(old)) old.remove();
  overlay.prepend(...parts);
  handles.forEach((handle, k) => {
    if (handle.parentNode !== overlay) overlay.append(handle);
    const [x, y] = view.pixel(state.line[k]);
    handle.setAttribute("transform", `translate(${x} ${y})`);
    handle.setAttribute("aria-valuenow", state.line[k][0].toFixed(2));
    handle.setAttribute("aria-valuetext", `${surface().axes[0]} ${state.line[k][0].toFixed(2)}, ${surface().axes[1]} ${state.line[k][1].toFixed(2)}`);
  });
}

let kept = null;
function handleElements() {
  kept ??= ["A", "B"].map((name, k) => {
    const handle = drawn("g", { class: "handle", tabindex: 0, role: "slider", id: `handle-${name}`, "aria-label": `end ${name} of the line`, "aria-valuemin": 0, "aria-valuemax": 1 },
      drawn("circle", { class: "reach", r: 20 }), drawn("circle", { r: 9 }), drawn("text", {}, name));
    handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); handle.focus({ preventScroll: true }); });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = $("overlay").getBoundingClientRect();
      moveEnd(k, view.place([event.clientX - box.left, event.clientY - box.top]));
    });
    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? HANDLE_STEP / 5 : HANDLE_STEP;
      const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowDown: [0, -step], ArrowUp: [0, step] }[event.key];
      if (!move) return;
      event.preventDefault();
      moveEnd(k, state.line[k].map((x, i) => x + move[i]));
      say(`end ${name}: ${handle.getAttribute("aria-valuetext")}`);
    });
    return handle;
  });
  return kept;
}

function moveEnd(k, to) {
  state.line[k] = lattice.clip(to, state.slice);
  drawOverlay();
  soon(drawProfileNow);
}

function drawAll() {
  document.querySelector("main").classList.toggle("plain", !lattice);
  document.querySelector("main").classList.toggle("bare", surface().isDiscrete);
  $("views").classList.toggle("single", !lattice);
  $("relief-card").hidden = $("profile-card").hidden = $("same").parentElement.hidden = !lattice;
  fillFacts();
  drawMapNow();
  fillPoint();
  fillPoints();
  drawProfileNow();
  fillEnsemble();
  fillBarrier();
  fillRivals();
  // What is slow to draw comes after what is looked at first.
  setTimeout(() => soon(drawReliefNow), 0);
}

// --- keys and events ------------------------------------------------------------------------------

// The point that an arrow leads to: along the grid, or to the next one of a line.
function neighbour(key) {
  const moves = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0], PageDown: [0, 0, -1], PageUp: [0, 0, 1] };
  if (!(key in moves)) return undefined;
  if (lattice) {
    const index = lattice.index(surface().points[state.point]).map((i, axis) => i + moves[key][axis]);
    return lattice.number(index);
  }
  const order = surface().isDiscrete ? surface().points.map((_, n) => n) : [...new Set(surface().paths.flatMap((path) => path.points))];
  const [dx, dy] = moves[key];
  return order[order.indexOf(state.point) + dx + dy];
}

$("map").addEventListener("keydown", (event) => {
  if (event.target !== $("map")) return;
  const next = neighbour(event.key);
  if (event.key.startsWith("Arrow") || event.key.startsWith("Page")) event.preventDefault();
  if (next !== undefined) moveTo(next);
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(state.point); }
  if (event.key === "Delete" || event.key === "Backspace") { setMembers([]); say("no point is in the ensemble"); }
});
$("map").addEventListener("focus", announce);
$("experiment").addEventListener("change", (event) => {
  const { name } = surface();
  const to = Number(event.target.value);
  choose({ replicate: to, surface: Math.max(DATA.replicates[to].surfaces.findIndex((one) => one.name === name), 0) });
});
$("surface").addEventListener("change", (event) => choose({ surface: Number(event.target.value) }));
$("slice").addEventListener("input", (event) => {
  const k = Number(event.target.value);
  moveTo(lattice.slice(k)[0]);
});
$("log").addEventListener("change", (event) => choose({ isLog: event.target.checked }));
$("same").addEventListener("change", (event) => choose({ isSame: event.target.checked }));
$("cost").addEventListener("change", (event) => choose({ cost: event.target.value }));
$("points-details").addEventListener("toggle", fillPoints);
$("controls").addEventListener("submit", (event) => event.preventDefault());
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", drawAll);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; soon(drawAll); } });
addEventListener("hashchange", () => { readAddress(); enterSurface(); drawAll(); });

readAddress();
enterSurface();
$("version").textContent = `fourfold ${DATA.version}`;
drawAll();
document.body.dataset.ready = "yes";
