// What is drawn: each function fills one element and knows nothing of the page around it.

const MEASURES = {
  nll: { label: "nll (nats per example)", factor: 1, digits: 4, unit: "", isLoss: true },
  accuracy: { label: "accuracy (%)", factor: 100, digits: 2, unit: " %", isLoss: false },
  ece: { label: "ece (%)", factor: 100, digits: 2, unit: " %", isLoss: true },
  brier: { label: "brier", factor: 1, digits: 4, unit: "", isLoss: true },
};
const MARKS = {
  corner: { symbol: "square", sign: "■", size: 10 },
  "best-point": { symbol: "star", sign: "★", size: 15 },
  center: { symbol: "cross-thin", sign: "+", size: 10 },
  oracle: { symbol: "diamond-open", sign: "◇", size: 12 },
  worst: { symbol: "triangle-down", sign: "▼", size: 11 },
};
const QUIET = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
const MARGIN = { l: 46, r: 78, t: 12, b: 42 };

function format(metric, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "no number";
  const { factor, digits, unit } = MEASURES[metric];
  return (factor * value).toFixed(digits) + unit;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Values of a metric on an axis: in its unit, or their logarithms, of an accuracy those of the error.
class Scale {
  constructor(metric, isLog, values, images) {
    Object.assign(this, { metric, isLog, images, measure: MEASURES[metric] });
    const places = values.map((value) => this.place(value)).filter(Number.isFinite);
    [this.low, this.high] = [Math.min(...places), Math.max(...places)];
    if (!places.length) [this.low, this.high] = [0, 1];
    if (this.high - this.low < 1e-9) [this.low, this.high] = [this.low - 0.5, this.high + 0.5];
  }

  place(value) {
    if (value === null || value === undefined) return NaN;
    if (!this.isLog) return this.measure.factor * value;
    const floor = this.metric === "accuracy" || this.metric === "ece" ? 0.5 / this.images : 1e-6;
    return this.measure.isLoss
      ? Math.log10(Math.max(value, floor))
      : -Math.log10(Math.max(1 - value, floor));
  }

  // Plotly's names for the ticks; by itself it chooses those of a linear scale well.
  get ticks() {
    if (!this.isLog) return {};
    const steps = this.high - this.low > 1.5 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    const values = [-5, -4, -3, -2, -1, 0, 1, 2]
      .flatMap((power) => steps.map((step) => step * 10 ** power))
      .map((x) => (this.measure.isLoss ? x : 1 - x))
      .filter((x) => this.place(x) >= this.low - 0.02 && this.place(x) <= this.high + 0.02);
    const text = (x) => String(Number((this.measure.factor * x).toPrecision(6)));
    return { tickmode: "array", tickvals: values.map((x) => this.place(x)), ticktext: values.map(text) };
  }

  get colours() {
    return { colorscale: "Viridis", reversescale: this.measure.isLoss };
  }
}

function layout(more) {
  const [ink, grid, faint] = ["ink", "grid", "faint"].map(colour);
  const axis = { gridcolor: grid, zeroline: false, linecolor: grid, tickcolor: grid, automargin: false };
  const merged = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: faint },
    hoverlabel: { bgcolor: colour("card"), bordercolor: faint, font: { color: ink, size: 12 }, align: "left" },
    showlegend: false,
    dragmode: false,
    hovermode: "closest",
    ...more,
  };
  for (const name of ["xaxis", "yaxis", "xaxis2"]) {
    if (more[name]) merged[name] = { ...axis, fixedrange: true, ...more[name] };
  }
  return merged;
}

function colourbar(scale, height) {
  return {
    thickness: 11, len: 1, y: 0.5, x: 1.03, xpad: 0, outlinewidth: 0, tickfont: { size: 11 },
    title: { text: scale.measure.label, side: "right", font: { size: 11 } }, height, ...scale.ticks,
  };
}

// --- the map --------------------------------------------------------------------------------------

// Draws a surface and returns where things are: `pixel(place)` of a place, and `places` of points.
function drawMap(element, { surface, lattice, k, values, scale, hover, canJoin, marks }) {
  const isFlat = surface.axes.length > 1;
  const width = Math.min(element.clientWidth, isFlat ? 640 : Infinity);
  const view = isFlat ? flatView(surface, lattice, k, values, scale) : lineView(surface, values, scale);
  const height = isFlat ? width - MARGIN.l - MARGIN.r + MARGIN.t + MARGIN.b : Math.min(width * 0.6, 340);
  const shown = view.places.map((place, n) => (place ? n : -1)).filter((n) => n >= 0);
  const dots = {
    type: "scatter", mode: "markers", x: shown.map((n) => view.places[n][0]), y: shown.map((n) => view.places[n][1]),
    customdata: shown, text: shown.map(hover), hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
    marker: {
      size: shown.map((n) => (isFlat ? (canJoin(n) ? 6 : 3) : 8)),
      color: isFlat ? "rgba(255,255,255,0.85)" : shown.map((n) => scale.place(values[n])),
      ...(isFlat ? {} : { ...scale.colours, cmin: scale.low, cmax: scale.high }),
      line: { width: 0.8, color: isFlat ? "rgba(0,0,0,0.45)" : colour("faint") },
    },
  };
  const placed = marks.map((mark) => [mark, view.mark(mark)]).filter(([, place]) => place);
  const signs = {
    type: "scatter", mode: "markers+text", hoverinfo: "skip", cliponaxis: false,
    x: placed.map(([, place]) => place[0]), y: placed.map(([, place]) => place[1]),
    text: placed.map(([mark]) => mark.name ?? ""),
    textposition: placed.map(([, [x, y]]) => `${y < 0.5 * (view.y[0] + view.y[1]) ? "top" : "bottom"} ${x < 0.5 * (view.x[0] + view.x[1]) ? "right" : "left"}`),
    textfont: { size: 11, color: isFlat ? "#000" : colour("ink"), shadow: isFlat ? "0 0 3px #fff, 0 0 3px #fff, 0 0 2px #fff" : "none" },
    marker: {
      symbol: placed.map(([mark]) => MARKS[mark.kind].symbol), size: placed.map(([mark]) => MARKS[mark.kind].size),
      color: placed.map(([mark]) => (mark.kind === "corner" ? "#fff" : mark.kind === "worst" ? "#e69f00" : "#d55e00")),
      line: { width: placed.map(([mark]) => (mark.kind === "center" ? 2 : 1.2)), color: placed.map(([mark]) => (mark.kind === "oracle" ? "#d55e00" : "#000")) },
    },
  };
  Plotly.react(element, [...view.traces, dots, signs], layout({
    width, height, margin: MARGIN,
    xaxis: { range: view.x, title: { text: view.names[0], standoff: 6 }, ...view.xTicks, showgrid: !isFlat, ticklen: 3 },
    yaxis: { range: view.y, title: { text: view.names[1], standoff: 4 }, ...view.yTicks, showgrid: !isFlat, ticklen: 3 },
  }), QUIET);
  const across = (x, [low, high], size) => ((x - low) / (high - low)) * size;
  const [w, h] = [width - MARGIN.l - MARGIN.r, height - MARGIN.t - MARGIN.b];
  return {
    places: view.places, width, height,
    pixel: ([x, y]) => [MARGIN.l + across(x, view.x, w), MARGIN.t + h - across(y, view.y, h)],
    place: ([px, py]) => [
      view.x[0] + ((px - MARGIN.l) / w) * (view.x[1] - view.x[0]),
      view.y[0] + ((MARGIN.t + h - py) / h) * (view.y[1] - view.y[0]),
    ],
  };
}

function flatView(surface, lattice, k, values, scale) {
  const { axis, z } = lattice.matrix(values.map((value) => scale.place(value)), k);
  const slice = new Set(lattice.slice(k));
  const isHere = (at) => at.length < 3 || Math.abs(at[2] - k / lattice.steps) < 1e-9;
  const range = [-0.045, 1.045];
  return {
    x: range, y: range, names: surface.axes,
    xTicks: { dtick: 0.25 }, yTicks: { dtick: 0.25 },
    places: surface.points.map((point, n) => (slice.has(n) ? point.slice(0, 2) : null)),
    mark: ({ at }) => (isHere(at) ? at.slice(0, 2) : null),
    traces: [{
      type: "contour", x: axis, y: axis, z, zmin: scale.low, zmax: scale.high, hoverinfo: "skip",
      ...scale.colours, ncontours: 14, connectgaps: false,
      contours: { coloring: "heatmap" }, line: { width: 0.6, color: "rgba(255,255,255,0.45)" }, colorbar: colourbar(scale),
    }],
  };
}

function lineView(surface, values, scale) {
  const pad = 0.08 * (scale.high - scale.low);
  const places = surface.points.map(() => null);
  const names = surface.axes;
  const traces = [];
  if (surface.isDiscrete) {
    const order = [surface.points.findIndex((_, n) => !surface.atCorner.includes(n)), ...surface.atCorner].filter((n) => n >= 0);
    order.forEach((n, x) => { places[n] = [x, scale.place(values[n])]; });
    const text = order.map((n) => (surface.atCorner.includes(n) ? surface.corners[surface.atCorner.indexOf(n)].name : "mean"));
    return {
      x: [-0.5, order.length - 0.5], y: [scale.low - pad, scale.high + pad], names: ["network", scale.measure.label],
      xTicks: { tickmode: "array", tickvals: order.map((_, x) => x), ticktext: text }, yTicks: scale.ticks, places, traces, mark: () => null,
    };
  }
  const isStar = surface.paths.length > 1;
  for (const path of surface.paths) {
    path.points.forEach((n, i) => { places[n] = [path.at[i], scale.place(values[n])]; });
    traces.push({
      type: "scatter", mode: "lines", hoverinfo: "skip", x: path.at, y: path.points.map((n) => scale.place(values[n])),
      line: { color: colour("faint"), width: 1.5 },
    });
  }
  return {
    x: [-0.03, 1.03], y: [scale.low - pad, scale.high + pad], xTicks: { dtick: 0.25 }, yTicks: scale.ticks, places, traces,
    names: [isStar ? "from the center to each corner" : names[0], scale.measure.label],
    mark: ({ at }) => places[surface.points.findIndex(([u]) => Math.abs(u - at[0]) < 1e-5)] ?? null,
  };
}

// --- the relief -----------------------------------------------------------------------------------

function drawRelief(element, { surface, lattice, k, values, scale, hover, spots }) {
  const height = Math.min(Math.max(element.clientWidth * 0.9, 280), 560);
  const places = values.map((value) => scale.place(value));
  const isVolume = surface.axes.length > 2;
  const here = new Set(lattice.slice(k));
  const at = (n) => (isVolume ? surface.points[n] : [...surface.points[n], places[n]]);
  const shown = surface.points.map((_, n) => n);
  const hovered = { text: shown.map(hover), customdata: shown, hovertemplate: "%{text}<extra></extra>" };
  const column = (numbers, i) => numbers.map((n) => at(n)[i]);
  const traces = [{
    type: "scatter3d", mode: "markers", ...hovered, x: column(shown, 0), y: column(shown, 1), z: column(shown, 2),
    marker: isVolume
      ? { size: shown.map((n) => (here.has(n) ? 8 : 4)), color: places, cmin: scale.low, cmax: scale.high, ...scale.colours, line: { width: 0 } }
      : { size: 3.5, color: "rgba(255,255,255,0.9)", line: { width: 1, color: "rgba(0,0,0,0.5)" } },
  }];
  if (!isVolume) {
    const { axis, z } = lattice.matrix(places, k);
    traces.unshift({
      type: "surface", x: axis, y: axis, z, cmin: scale.low, cmax: scale.high, ...scale.colours, showscale: false, hoverinfo: "skip",
      contours: { z: { show: true, usecolormap: false, color: "rgba(255,255,255,0.4)", width: 1 } },
      lighting: { ambient: 0.85, diffuse: 0.3, specular: 0.04 },
    });
  }
  for (const [numbers, symbol, size, look] of [[spots.members, "circle-open", 9, "accent"], [[spots.point], "circle", 6, "warm"]]) {
    traces.push({
      type: "scatter3d", mode: "markers", hoverinfo: "skip", x: column(numbers, 0), y: column(numbers, 1), z: column(numbers, 2),
      marker: { symbol, size, color: colour(look), line: { width: 3, color: colour(look) } },
    });
  }
  const axis = { gridcolor: colour("line"), color: colour("faint"), showbackground: false, zeroline: false, showspikes: false };
  const pad = 0.03 * (scale.high - scale.low);
  Plotly.react(element, traces, {
    ...layout({ width: element.clientWidth, height, margin: { l: 0, r: 0, t: 0, b: 0 } }),
    dragmode: "turntable", uirevision: "camera",
    scene: {
      xaxis: { ...axis, title: { text: surface.axes[0] } }, yaxis: { ...axis, title: { text: surface.axes[1] } },
      zaxis: isVolume ? { ...axis, title: { text: surface.axes[2] } }
        : { ...axis, title: { text: scale.measure.label }, range: [scale.low - pad, scale.high + pad], ...scale.ticks },
      aspectratio: { x: 1, y: 1, z: isVolume ? 1 : 0.75 },
      camera: { eye: { x: -1.35, y: -1.45, z: 0.95 } },
    },
  }, { ...QUIET, scrollZoom: true });
}

// --- lines and bars -------------------------------------------------------------------------------

function drawProfile(element, { along, splits, shown, scale, corners }) {
  const looks = { train: ["faint", "dot"], val: ["third", "dash"], test: ["accent", "solid"] };
  const values = [...Object.values(splits).flat(), corners].map((v) => scale.place(v)).filter(Number.isFinite);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const pad = 0.08 * (high - low || 1);
  const traces = Object.entries(splits).map(([split, found]) => ({
    type: "scatter", mode: "lines", name: split, x: along, y: found.map((v) => scale.place(v)),
    text: found.map((v) => `${split}: ${format(scale.metric, v)}`), hovertemplate: "%{text}<extra></extra>",
    line: { color: colour(looks[split]?.[0] ?? "ink"), dash: looks[split]?.[1] ?? "solid", width: split === shown ? 2.6 : 1.3 },
  }));
  Plotly.react(element, traces, layout({
    width: element.clientWidth, height: 260, margin: { l: 58, r: 12, t: 26, b: 40 }, hovermode: "x unified", showlegend: true,
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { size: 11 } },
    xaxis: { range: [-0.01, 1.01], title: { text: "A to B, share of the line", standoff: 6 }, showgrid: false },
    yaxis: { range: [low - pad, high + pad], title: { text: scale.measure.label, standoff: 6 }, ...scale.ticks },
    shapes: [corners].filter(Number.isFinite).map(() => ({ type: "line", x0: 0, x1: 1, y0: scale.place(corners), y1: scale.place(corners), line: { color: colour("warm"), width: 1, dash: "longdash" } })),
    annotations: [corners].filter(Number.isFinite).map(() => ({ x: 0, y: scale.place(corners), text: `corners' mean, ${shown}`, showarrow: false, xanchor: "left", yanchor: "bottom", font: { size: 10, color: colour("warm") } })),
  }), QUIET);
}

// What lies between the corners' mean and the worst point.
function partsOf({ areCorners, statistics }) {
  return [
    ["corner_mean_own", `corners, ${areCorners}`],
    ...(statistics ? [["corner_mean", `corners, ${statistics}`]] : []),
    ["mean", "mean of the surface"],
    ["max", "worst point"],
  ];
}

function drawBarrier(element, rows, parts, metric) {
  const of = rows.filter((row) => row.metric === metric);
  const factor = metric === "error" ? 100 : 1;
  const looks = { train: "faint", val: "third", test: "accent" };
  const traces = of.map((row) => ({
    type: "bar", orientation: "h", name: row.split, marker: { color: colour(looks[row.split] ?? "ink") },
    y: [...parts.map(([, label]) => label), "barrier"], x: [...parts.map(([part]) => row[part]), row.barrier].map((x) => (x === null ? null : factor * x)),
    hovertemplate: `${row.split}, %{y}: %{x:.4g}<extra></extra>`,
  }));
  Plotly.react(element, traces, layout({
    width: element.clientWidth, height: 270, margin: { l: 142, r: 10, t: 26, b: 38 }, bargap: 0.3, bargroupgap: 0.08, showlegend: true,
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { size: 11 }, traceorder: "normal" },
    xaxis: { title: { text: metric === "error" ? "error (%)" : "nll (nats per example)", standoff: 6 }, zeroline: true, zerolinecolor: colour("faint") },
    yaxis: { autorange: "reversed", showgrid: false, automargin: true },
  }), QUIET);
}

// Methods by what they cost; returns the front, by rising cost.
function drawRivals(element, rows, metric, cost) {
  const sign = MEASURES[metric].isLoss ? 1 : -1;
  const known = rows.filter((row) => row[metric] !== null);
  const ordered = [...known].sort((a, b) => a[cost] - b[cost] || sign * (a[metric] - b[metric]));
  const front = [];
  for (const row of ordered) {
    if (!front.length || sign * (row[metric] - front.at(-1)[metric]) < 0) front.push(row);
  }
  const paid = known.map((row) => row[cost]).filter((x) => x > 0);
  const free = (paid.length ? Math.min(...paid) : 2) / 2; // no place on a logarithmic scale is zero
  const turn = (row) => Object.keys(families).indexOf(familyOf(row)) - 2; // families stand aside
  const x = (row) => (row[cost] > 0 ? row[cost] : free) * 10 ** (0.02 * turn(row));
  const y = (row) => MEASURES[metric].factor * row[metric];
  const families = {
    network: ["one network", "circle", "ink"], mean: ["mean of networks", "diamond", "faint"],
    ensemble: ["ensemble of networks", "square", "accent"], point: ["one point", "triangle-up", "third"],
    points: ["ensemble of points", "triangle-down", "warm"],
  };
  const familyOf = ({ method }) => {
    const end = method.split("/").at(-1).replace(/-\d+$/, "");
    return { center: "point", "best-point": "point", "greedy-soup": "mean", greedy: "points", inner: "points", all: "points" }[end] ?? end;
  };
  const traces = Object.entries(families).map(([family, [name, symbol, look]]) => {
    const of = known.filter((row) => familyOf(row) === family);
    return {
      type: "scatter", mode: "markers", name, x: of.map(x), y: of.map(y), marker: { symbol, size: 8, color: colour(look), opacity: 0.85 },
      text: of.map((row) => `<b>${row.method}</b><br>nll ${format("nll", row.nll)}, accuracy ${format("accuracy", row.accuracy)}<br>${row.images_backward.toLocaleString("en")} images backward, ${row.forward_passes} forward passes`),
      hovertemplate: "%{text}<extra></extra>",
    };
  }).filter((trace) => trace.x.length);
  const end = Math.max(...known.map(x), 0);
  traces.unshift({
    type: "scatter", mode: "lines", name: "front", hoverinfo: "skip", line: { shape: "hv", color: colour("faint"), width: 1.2 },
    x: [...front.map(x), end], y: [...front.map(y), front.length ? y(front.at(-1)) : null],
  });
  const values = front.map(y);
  const reach = Math.max(...values) - Math.min(...values);
  const worst = Math.max(...values.map((v) => sign * v));
  const near = known.map(y).filter((v) => sign * v - worst <= 1.5 * (reach || 1));
  const [low, high] = [Math.min(...near), Math.max(...near)];
  const pad = 0.08 * (high - low || 1);
  const far = known.length - near.length;
  Plotly.react(element, traces, layout({
    width: element.clientWidth, height: 400, margin: { l: 62, r: 14, t: element.clientWidth < 560 ? 92 : 36, b: 44 }, showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", font: { size: 11 } },
    xaxis: { type: "log", title: { text: cost === "forward_passes" ? "forward passes per prediction" : "images passed backward", standoff: 6 }, dtick: "D2", tickformat: "~s" },
    yaxis: { range: [low - pad, high + pad], title: { text: MEASURES[metric].label, standoff: 6 } },
    annotations: front.map((row, i) => ({
      x: Math.log10(x(row)), y: y(row), text: row.method, showarrow: false, xanchor: "left", yanchor: i % 2 ? "bottom" : "top", xshift: 6, font: { size: 10, color: colour("ink") },
    })),
  }), QUIET);
  return { front, far };
}
