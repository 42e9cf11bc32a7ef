/* Loss surfaces: two panes on one scale, turned together, with a slider over the epochs. */
"use strict";
(() => {
  const place = document.getElementById("surface-view");
  if (!place) return;
  const { sets } = data.surfaces;
  const COLOURS = "Viridis"; // even in lightness, and safe for colour blindness

  // -- data -------------------------------------------------------------------------------------------------
  const known = new Map();
  function numbers(packed) {
    if (Array.isArray(packed)) return packed.map((value) => (value === null ? NaN : value));
    if (!known.has(packed)) {
      const bytes = Uint8Array.from(atob(packed.bdata), (letter) => letter.charCodeAt(0));
      known.set(packed, [...new Float32Array(bytes.buffer)]);
    }
    return known.get(packed);
  }
  function rows(packed) {
    const [ny, nx] = packed.shape.split(",").map(Number), flat = numbers(packed);
    return Array.from({ length: ny }, (_, j) => flat.slice(j * nx, (j + 1) * nx));
  }
  const plainText = (html) => html.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  const text = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

  // -- state and controls -------------------------------------------------------------------------------------
  const state = { set: 0, quantity: "loss", scale: "log", view: "both", step: 0, panes: [{ run: 0, subset: 0 }, { run: 0, subset: 1 }] };
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  function select(label, options, value, changed) {
    const box = element("select", {}, ...options.map((option, k) => element("option", { value: String(k), textContent: option })));
    box.value = String(value);
    box.addEventListener("change", () => { changed(Number(box.value)); update(); });
    return element("label", { className: "choice" }, `${label} `, box);
  }
  function choice(label, name, options) {
    const group = element("fieldset", { className: "choice" }, element("legend", { textContent: label }));
    for (const [value, title] of options) {
      const input = element("input", { type: "radio", name: `surface-${name}`, value, checked: state[name] === value });
      input.addEventListener("change", () => { state[name] = value; update(); });
      group.append(element("label", {}, input, element("span", { textContent: title })));
    }
    return group;
  }
  const current = () => sets[state.set];
  const epochs = () => [...new Set(current().runs.flatMap((run) => run.points.map((point) => point.epoch)))].sort((a, b) => a - b);
  const subsetsOf = (run) => run.points[run.points.length - 1].subsets;

  const slider = element("input", { type: "range", min: "0", step: "1", id: "epoch-slider" });
  const told = element("output", {});
  slider.addEventListener("input", () => { state.step = Number(slider.value); update(); });
  const play = element("button", { type: "button", textContent: "Play" });
  play.addEventListener("click", () => {
    if (play.timer) return stop();
    if (state.step >= epochs().length - 1) state.step = -1;
    play.textContent = "Stop";
    play.timer = setInterval(() => {
      state.step += 1;
      if (state.step >= epochs().length - 1) stop();
      update();
    }, 900);
    return undefined;
  });
  function stop() { clearInterval(play.timer); play.timer = null; play.textContent = "Play"; }

  const controls = element("div", { className: "surface-controls" });
  const sliding = element("div", { className: "slider" }, element("label", { htmlFor: "epoch-slider", textContent: "Epoch" }), slider, told, play);
  const panes = element("div", { className: "panes" });
  const note = element("p", { className: "surface-note" });
  const views = [0, 1].map((k) => {
    const view = {
      head: element("div", { className: "pane-head" }), solid: element("div", { className: "solid" }),
      flat: element("div", { className: "flat" }), words: element("p", { className: "note" }),
    };
    view.solid.setAttribute("role", "img");
    view.flat.setAttribute("role", "img");
    view.box = element("div", { className: "pane" }, view.head, view.solid, view.flat, view.words);
    view.box.dataset.pane = k ? "right" : "left";
    panes.append(view.box);
    return view;
  });
  place.append(controls, sliding, panes, note);

  function build() {
    const set = current();
    const runs = set.runs.map((run) => plainText(run.label));
    controls.replaceChildren(
      ...(sets.length > 1 ? [select("Plane", sets.map((one) => plainText(one.label)), state.set, (k) => { state.set = k; reset(); })] : []),
      choice("Show", "view", [["both", "3D and contours"], ["solid", "3D"], ["flat", "Contours"]]),
      choice("Value", "quantity", [["loss", "Loss"], ["accuracy", "Accuracy"]]),
      choice("Scale", "scale", [["log", "Log"], ["linear", "Linear"]]),
    );
    views.forEach((view, k) => {
      const pane = state.panes[k];
      view.head.replaceChildren(
        ...(runs.length > 1 ? [select("Run", runs, pane.run, (run) => { pane.run = run; build(); })] : []),
        select("Classes", subsetsOf(set.runs[pane.run]).map((subset) => plainText(subset.title)), pane.subset, (subset) => { pane.subset = subset; }),
      );
    });
    sliding.hidden = epochs().length < 2;
  }
  function reset() {
    const places = subsetsOf(current().runs[0]).map((subset) => subset.key);
    const find = (name, other) => (places.includes(name) ? places.indexOf(name) : Math.min(other, places.length - 1));
    state.panes = [{ run: 0, subset: find("head", 0) }, { run: 0, subset: find("tail", 1) }];
    if (places.length < 2 && current().runs.length > 1) state.panes[1] = { run: 1, subset: 0 };
    state.step = epochs().length - 1;
    known.delete("range");
    state.scale = range().wide ? "log" : "linear";
    build();
  }

  // -- one scale for everything in the set -----------------------------------------------------------------------
  const ranges = new Map();
  function range() {
    if (!ranges.has(state.set)) {
      const values = current().runs.flatMap((run) => run.points.flatMap((point) => point.subsets.flatMap((subset) => numbers(subset.loss))));
      const finite = Float64Array.from(values.filter(Number.isFinite)).sort();
      const positive = finite.find((value) => value > 0) ?? 1e-3, high = finite[finite.length - 1] ?? 1;
      // Below a loss of 1e-4 nothing is left to learn: the colours are kept for what differs.
      const low = Math.max(positive, Math.min(1e-4, high / 1e3), high / 1e6);
      ranges.set(state.set, { low, high, cut: finite[Math.floor(0.8 * (finite.length - 1))] ?? 1, least: finite[0] ?? 0, wide: high > 20 * low });
    }
    return ranges.get(state.set);
  }
  function scale() {
    const limits = range();
    if (state.quantity === "accuracy") return { low: 0, high: 1, of: (v) => v, title: "accuracy", clipped: "" };
    if (state.scale === "linear") {
      const low = Math.min(limits.least, 0), cut = limits.high > 3 * limits.cut ? limits.cut : limits.high;
      return {
        low, high: cut, of: (v) => Math.min(v, cut), title: "loss",
        clipped: cut < limits.high ? `On this scale the picture is cut at a loss of ${text(cut)}; the highest is ${text(limits.high)}. ` : "",
      };
    }
    const low = Math.log10(limits.low), high = Math.max(Math.log10(limits.high), low + 0.1);
    const ticks = [];
    for (let power = Math.floor(low); power <= high; power += 1) {
      for (const mantissa of high - low > 2.5 ? [1] : [1, 2, 5]) {
        const at = power + Math.log10(mantissa);
        if (at >= low - 1e-9 && at <= high + 1e-9) ticks.push(at);
      }
    }
    return {
      low, high, of: (v) => Math.log10(Math.min(Math.max(v, limits.low), limits.high)), title: "loss (log scale)",
      tickvals: ticks, ticktext: ticks.map((at) => text(10 ** at)),
      clipped: limits.least < limits.low ? `On this scale losses below ${text(limits.low)} are drawn as ${text(limits.low)}; the lowest is ${limits.least.toPrecision(2)}. ` : "",
    };
  }

  // -- drawing ------------------------------------------------------------------------------------------------
  let camera = { eye: { x: 1.45, y: -1.45, z: 0.95 }, center: { x: 0, y: 0, z: -0.15 } };
  const webgl = (() => {
    try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
  })();

  function nearest(run) {
    const wanted = epochs()[state.step];
    return run.points.reduce((best, point) => (Math.abs(point.epoch - wanted) < Math.abs(best.epoch - wanted) ? point : best));
  }

  function drawPane(k) {
    const view = views[k], set = current(), pane = state.panes[k], run = set.runs[pane.run];
    const point = nearest(run), wanted = subsetsOf(run)[pane.subset];
    const subset = point.subsets.find((one) => one.key === wanted.key);
    if (!subset) {
      for (const graph of [view.solid, view.flat]) Plotly.purge(graph);
      view.words.textContent = `${plainText(wanted.title)} was not measured at epoch ${point.epoch}.`;
      return;
    }
    const axis = scale(), values = rows(subset[state.quantity]), z = values.map((row) => row.map(axis.of));
    const [x, y] = [numbers(point.x), numbers(point.y)];
    const hover = `%{x:.3g}, %{y:.3g}<br>${state.quantity} %{customdata:.4g}<extra></extra>`;
    const reversed = state.quantity === "accuracy";
    const bar = {
      title: { text: axis.title, side: "right" }, thickness: 14, outlinewidth: 0, tickvals: axis.tickvals, ticktext: axis.ticktext,
      ...(narrow() ? { orientation: "h", y: -0.2, yanchor: "top", title: { text: axis.title, side: "bottom" } } : {}),
    };
    const look = palette();
    if (view.box.dataset.solid !== "no" && webgl) {
      const plain = { gridcolor: look.line, zerolinecolor: look.line, linecolor: look.line, showbackground: false, color: look.soft, showspikes: false };
      Plotly.react(view.solid, [{
        type: "surface", x, y, z, customdata: values, cmin: axis.low, cmax: axis.high, colorscale: COLOURS, reversescale: reversed,
        showscale: false, hovertemplate: hover, lighting: { ambient: 0.75, diffuse: 0.5, specular: 0.05, roughness: 0.9 },
        contours: { z: { show: true, color: "rgba(0,0,0,0.35)", width: 1, start: axis.low, end: axis.high, size: (axis.high - axis.low) / 14 } },
      }], dressed({
        margin: { l: 0, r: 0, t: 0, b: 0 }, dragmode: "turntable", uirevision: "keep",
        scene: {
          camera, aspectmode: "manual", aspectratio: { x: 1.15, y: 1.15, z: 0.8 }, dragmode: "turntable",
          xaxis: { ...plain, title: { text: set.x_title } }, yaxis: { ...plain, title: { text: set.y_title } },
          zaxis: { ...plain, title: { text: axis.title }, range: [axis.low, axis.high], tickvals: axis.tickvals, ticktext: axis.ticktext },
        },
      }), CONFIG);
    }
    const traces = [{
      type: "contour", x, y, z, customdata: values, zmin: axis.low, zmax: axis.high, colorscale: COLOURS, reversescale: reversed,
      contours: { start: axis.low, end: axis.high, size: (axis.high - axis.low) / 14 }, line: { width: 0.7, color: "rgba(0,0,0,0.55)" },
      colorbar: bar, hovertemplate: hover, connectgaps: false,
    }];
    const mark = { type: "scatter", mode: "markers", showlegend: false, hoverinfo: "skip" };
    if (point.evaluated) {
      const on = numbers(point.evaluated), dots = { x: [], y: [] };
      on.forEach((flag, place) => { if (flag) { dots.x.push(x[place % x.length]); dots.y.push(y[Math.floor(place / x.length)]); } });
      traces.push({ ...mark, ...dots, marker: { size: 2.5, color: "rgba(255,255,255,0.75)" } });
    }
    if (point.path) {
      traces.push({
        ...mark, mode: "lines+markers", hoverinfo: "text", text: point.path.labels, x: numbers(point.path.x), y: numbers(point.path.y),
        line: { color: "#ffffff", width: 2 }, marker: { size: 6, color: "#ffffff", line: { color: "#111111", width: 1.2 } },
      });
    }
    if (set.centre) traces.push({ ...mark, x: [0], y: [0], marker: { symbol: "cross-thin", size: 14, line: { width: 3, color: "#d8392f" } } });
    const square = Math.abs((y[y.length - 1] - y[0]) / (x[x.length - 1] - x[0]) - 1) < 0.02;
    Plotly.react(view.flat, traces, dressed({
      xaxis: { title: { text: set.x_title }, range: [x[0], x[x.length - 1]], constrain: "domain", showgrid: false, zeroline: false },
      yaxis: { title: { text: set.y_title }, range: [y[0], y[y.length - 1]], showgrid: false, zeroline: false, ...(square ? { scaleanchor: "x", constrain: "domain" } : {}) },
      margin: { l: 50, r: 10, t: 12, b: narrow() ? 96 : 44 }, showlegend: false,
    }), CONFIG);
    const name = `${plainText(run.label)}, ${plainText(subset.title)}, epoch ${point.epoch}`;
    view.solid.setAttribute("aria-label", `${state.quantity} surface in three dimensions: ${name}`);
    view.flat.setAttribute("aria-label", `${state.quantity} contours: ${name}`);
    const flat = values.flat().filter(Number.isFinite), missing = values.flat().length - flat.length;
    view.words.textContent = [
      `${name}: ${subset.count.toLocaleString("en")} samples; ${state.quantity} from ${text(flat.reduce((a, b) => Math.min(a, b)))} to ${text(flat.reduce((a, b) => Math.max(a, b)))}`,
      set.centre && subset.centre !== null && state.quantity === "loss" ? `, ${subset.centre} at the solution` : "", ".",
      missing ? ` No finite value at ${missing} points (gaps).` : "", subset.note ? ` ${subset.note}` : "",
    ].join("");
  }

  function update() {
    if (!panels.some((panel) => panel.contains(place) && panel.classList.contains("open"))) return;
    const steps = epochs();
    state.step = Math.max(0, Math.min(state.step, steps.length - 1));
    slider.max = String(steps.length - 1);
    slider.value = String(state.step);
    slider.setAttribute("aria-valuetext", `epoch ${steps[state.step]}`);
    told.textContent = `${steps[state.step]} of ${steps[steps.length - 1]}`;
    for (const view of views) {
      view.solid.hidden = state.view === "flat" || !webgl;
      view.flat.hidden = state.view === "solid" && webgl;
    }
    drawPane(0);
    drawPane(1);
    couple();
    note.textContent = (webgl ? "" : "This browser has no WebGL: contours only. ") + scale().clipped + current().note;
  }

  // Both surfaces turn together.
  let turning = false;
  function couple() {
    views.forEach((view, k) => {
      if (view.coupled || !view.solid.on) return;
      view.coupled = true;
      const turn = (change) => {
        const found = change["scene.camera"];
        if (!found || turning) return;
        camera = found;
        turning = true;
        const other = views[1 - k].solid;
        Promise.resolve(other.on ? Plotly.relayout(other, { "scene.camera": found }) : null).finally(() => { turning = false; });
      };
      view.solid.on("plotly_relayout", turn);
    });
  }

  reset();
  drawers.surfaces = update;
})();
