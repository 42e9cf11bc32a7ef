/* Tabs, theme, controls and charts. Everything that is drawn comes from the page's own data; nothing is loaded. */
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
root.classList.add("js");

// -- look ---------------------------------------------------------------------------------------------------
// Okabe and Ito's colours, lighter ones where they would not be seen on a dark ground.
const PALETTES = {
  light: {
    head: "#0b67a8", many: "#0b67a8", tail: "#d8392f", few: "#d8392f", med: "#8a6d1f", all: "#333333",
    c: ["#0072b2", "#d55e00", "#008060", "#b25a8a", "#8a6d1f", "#2f8fc4", "#333333", "#b87a00"],
    ink: "#1b1e25", soft: "#565d6c", grid: "#e3e6ee", line: "#9aa1b0", card: "#ffffff",
  },
  dark: {
    head: "#5cb3f2", many: "#5cb3f2", tail: "#ff8177", few: "#ff8177", med: "#e0bf62", all: "#d5d8e0",
    c: ["#5cb3f2", "#ff8c4a", "#3fcfa4", "#e59ac6", "#e0bf62", "#9bd4f5", "#d5d8e0", "#ffb52e"],
    ink: "#e7e9ef", soft: "#a6aebd", grid: "#2b303c", line: "#606a7d", card: "#1b1e26",
  },
};
const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
let theme = "auto", printing = false;
const dark = () => !printing && (theme === "dark" || (theme === "auto" && wantsDark.matches));
const palette = () => PALETTES[dark() ? "dark" : "light"];

function colour(token) { // "@head", "@c3", with an opacity: "@head/0.2"
  const [name, opacity] = token.slice(1).split("/");
  const value = /^c\d+$/.test(name) ? palette().c[Number(name.slice(1)) % 8] : palette()[name];
  if (!opacity) return value;
  const [r, g, b] = [1, 3, 5].map((k) => parseInt(value.slice(k, k + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

function coloured(value) {
  if (typeof value === "string") return value.startsWith("@") ? colour(value) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
  }
  return value;
}

const narrow = () => window.innerWidth < 560;

function dressed(layout) {
  const look = palette();
  const axis = {
    gridcolor: look.grid, linecolor: look.line, zerolinecolor: look.grid, tickcolor: look.line, ticks: "outside",
    showline: true, automargin: true, exponentformat: "power", minexponent: 4,
  };
  const result = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: narrow() ? 11 : 12.5, color: look.ink },
    margin: { l: 56, r: 12, t: 10, b: 46 }, hovermode: "closest", dragmode: narrow() ? false : "zoom",
    legend: { orientation: "h", traceorder: "normal", y: 1.02, yanchor: "bottom", x: 0, font: { size: narrow() ? 10.5 : 12 }, itemwidth: 30 },
    hoverlabel: { bgcolor: look.card, bordercolor: look.line, font: { color: look.ink }, namelength: 40 },
    ...coloured(layout),
  };
  for (const key of ["xaxis", "yaxis"]) {
    result[key] = { ...axis, ...result[key] };
    if (result[key].title) result[key].title = { standoff: 10, ...result[key].title };
  }
  return result;
}

const CONFIG = {
  displaylogo: false, responsive: true, showTips: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
  modeBarButtonsToAdd: [{
    name: "Save as SVG", icon: Plotly.Icons.camera,
    click: (graph) => Plotly.downloadImage(graph, { format: "svg", filename: "landscape-lab" }),
  }],
};

// -- charts -------------------------------------------------------------------------------------------------
const drawn = new Map(); // element → the theme that it was drawn in
const drawers = {}; // section → what draws more than charts: surfaces.js

function draw(element) {
  const look = (dark() ? "dark" : "light") + (narrow() ? " narrow" : "");
  if (drawn.get(element) === look) return;
  drawn.set(element, look);
  const chart = data.charts[Number(element.dataset.chart)];
  Plotly.react(element, coloured(chart.traces), dressed(chart.layout), CONFIG);
}

const shown = (element) => !element.closest("[hidden]");

function drawSection(section) {
  for (const element of all(".chart", section)) if (shown(element)) draw(element);
  if (drawers[section.id]) drawers[section.id](section);
}

// -- controls -----------------------------------------------------------------------------------------------
function chosen(section) {
  const choices = {};
  for (const control of all(".controls [data-control]", section)) {
    const input = control.tagName === "SELECT" ? control : control.querySelector("input:checked");
    choices[control.dataset.control] = input.value;
  }
  return choices;
}

function filter(section) {
  const choices = chosen(section);
  for (const element of all("[data-facets]", section)) {
    const facets = JSON.parse(element.dataset.facets);
    element.hidden = Object.entries(facets).some(([key, value]) => key in choices && choices[key] !== value);
  }
}

// -- tabs ---------------------------------------------------------------------------------------------------
const tabs = all("[role=tab]"), panels = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));

function open(place, focus) {
  tabs.forEach((tab, k) => {
    const here = k === place;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    panels[k].classList.toggle("open", here);
  });
  if (focus) tabs[place].focus();
  tabs[place].scrollIntoView({ block: "nearest", inline: "nearest" });
  history.replaceState(null, "", `#${panels[place].id}`);
  drawSection(panels[place]);
}

tabs.forEach((tab, place) => {
  tab.addEventListener("click", (event) => { event.preventDefault(); open(place, true); });
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const target = {
      ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place === 0 ? last : place - 1, Home: 0, End: last,
      " ": place, Enter: place,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    open(target, true);
  });
});
window.addEventListener("hashchange", () => {
  const place = panels.findIndex((panel) => `#${panel.id}` === location.hash);
  if (place >= 0) open(place, false);
});

for (const section of panels) {
  for (const control of all(".controls [data-control]", section)) {
    control.addEventListener("change", () => { filter(section); drawSection(section); });
  }
  filter(section);
}

// -- theme, printing, tables ----------------------------------------------------------------------------------
function redraw() {
  root.dataset.theme = dark() ? "dark" : "light";
  for (const section of panels) if (printing || section.classList.contains("open")) drawSection(section);
}
for (const input of all("input[name=theme]")) {
  input.addEventListener("change", () => { theme = input.value; redraw(); });
}
wantsDark.addEventListener("change", redraw);
window.addEventListener("resize", () => { clearTimeout(redraw.timer); redraw.timer = setTimeout(redraw, 200); });
window.addEventListener("beforeprint", () => {
  printing = true;
  for (const section of panels) section.classList.add("open");
  for (const element of all("details")) element.open = true;
  redraw();
});
window.addEventListener("afterprint", () => {
  printing = false;
  const place = Math.max(0, tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true"));
  open(place, false);
  redraw();
});

function csvOf(table) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return all("tr", table).map((row) => [...row.cells].map((one) => cell(one.textContent)).join(",")).join("\n") + "\n";
}
for (const block of all(".table")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "CSV";
  button.setAttribute("aria-label", `Save the table “${block.querySelector("h3").textContent}” as CSV`);
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csvOf(block.querySelector("table"))], { type: "text/csv" }));
    link.download = "table.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  const head = document.createElement("div");
  head.className = "table-head";
  block.prepend(head);
  head.append(block.querySelector("h3"), button);
}
