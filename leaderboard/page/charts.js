"use strict";
(() => {
  // Charts: plotly stands after this script, so they are drawn when everything is loaded.
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const source = one("#chart-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
  const dashes = ["solid", "dash", "dot", "dashdot"];
  const shapes = [
    "M5.5 0a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z", "M.5 .5h10v10h-10z", "M5.5 0l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    "M5.5 .5l5.5 10h-11z", "M3.5 0h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z", "M2 0l3.5 3.5l3.5-3.5l2 2l-3.5 3.5l3.5 3.5l-2 2l-3.5-3.5l-3.5 3.5l-2-2l3.5-3.5l-3.5-3.5z",
    "M5.5 0l1.6 3.8l3.9 .3l-3 2.6l1 4.1l-3.5-2.2l-3.5 2.2l1-4.1l-3-2.6l3.9-.3z", "M5.5 0l5.5 4l-2.1 7h-6.8l-2.1-7z",
  ];
  const text = (value) => value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const baselines = new Set(data.baselines), off = new Set(), drawings = [];
  const redraw = () => drawings.forEach((draw) => draw());
  const dash = (entry) => dashes[Math.floor(data.entries.indexOf(entry) / 10) % dashes.length];

  // Legends: a button for each model, alike in all charts; the shapes of runtimes where they count.
  const present = {
    speed: new Set(data.speed.flatMap((view) => view.points.map((p) => p.entry))),
    curves: new Set(data.curves.flatMap((set) => set.kinds.flatMap((kind) => Object.keys(kind.lines)))),
    sweeps: new Set(data.sweeps.flatMap((sweep) => Object.keys(sweep.lines))),
  };
  for (const legend of all("[data-legend]")) {
    for (const entry of data.entries.filter((each) => present[legend.dataset.legend].has(each))) {
      const li = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("i");
      dot.className = "dot";
      dot.style.background = data.colors[entry];
      button.type = "button";
      button.dataset.entry = entry;
      button.setAttribute("aria-pressed", "true");
      button.append(dot, entry);
      button.addEventListener("click", () => {
        if (!off.delete(entry)) off.add(entry);
        for (const each of all("[data-legend] button")) each.setAttribute("aria-pressed", String(!off.has(each.dataset.entry)));
        redraw();
      });
      li.append(button);
      legend.append(li);
    }
    if (legend.dataset.legend !== "speed") continue;
    const gap = document.createElement("li");
    gap.className = "gap";
    legend.append(gap);
    data.engines.forEach((engine, i) => {
      const li = document.createElement("li");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      svg.setAttribute("viewBox", "0 0 11 11");
      path.setAttribute("d", shapes[i % shapes.length]);
      svg.append(path);
      li.append(svg, engine);
      legend.append(li);
    });
  }

  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const ticks = [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((first) => Number(`${first}e${power}`)));
  const logarithmic = { type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(String) };
  const plot = (target, traces, { x, y, xlog, notes }) => {
    const narrow = target.clientWidth < 560;
    const axis = { color: color("--soft"), gridcolor: color("--hair"), zeroline: false, linecolor: color("--line"), ticks: "", automargin: true };
    Plotly.react(target, traces, {
      margin: { l: narrow ? 48 : 64, r: narrow ? 16 : 28, t: 28, b: 56 }, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", annotations: narrow ? [] : notes ?? [],
      font: { family: color("--sans"), size: 13, color: color("--soft") },
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line"), font: { color: color("--ink") }, align: "left" },
      xaxis: { ...axis, ...(xlog ? logarithmic : {}), title: { text: text(x), standoff: 14 } },
      yaxis: { ...axis, title: { text: text(y), standoff: 10 } },
    }, { displayModeBar: false, responsive: true, scrollZoom: false });
  };
  const wide = (values) => {  // a range that only a logarithm shows
    const known = values.filter((value) => value !== null);
    return known.length > 1 && Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) > 12;
  };

  // A list to choose from; hidden where there is nothing to choose.
  const choose = (box, name, labels, changed) => {
    box.replaceChildren();
    if (labels.length < 2) { box.hidden = true; return; }
    box.hidden = false;
    const list = document.createElement("select");
    list.setAttribute("aria-label", name);
    labels.forEach((label, i) => list.append(new Option(label, String(i))));
    list.addEventListener("change", () => changed(Number(list.value)));
    box.append(list);
  };

  const speed = one("#speed");
  if (speed) {
    let view = data.speed[0];
    const draw = () => {
      const size = speed.clientWidth < 560 ? 11 : 13;
      const points = view.points.filter((p) => !off.has(p.entry));
      const traces = data.engines.map((engine, i) => {
        const own = points.filter((p) => p.engine === engine);
        const symbol = symbols[i % symbols.length];
        return {
          x: own.map((p) => p.ms), y: own.map((p) => p.e), mode: "markers", type: "scatter",
          text: own.map((p) => text(p.entry) + (p.noisy ? ", noisy" : "")), name: text(engine),
          marker: {
            size, symbol: own.map((p) => (p.noisy || baselines.has(p.entry) ? `${symbol}-open` : symbol)),
            color: own.map((p) => data.colors[p.entry]), line: { width: 1.5, color: own.map((p) => (p.noisy || baselines.has(p.entry) ? data.colors[p.entry] : color("--card"))) },
          },
          hovertemplate: "<b>%{text}</b><br>efficiency %{y:.1f}<br>%{x:.3~g} ms per frame<extra>%{fullData.name}</extra>",
        };
      });
      traces.unshift({
        x: view.front.map((p) => p[0]), y: view.front.map((p) => p[1]), mode: "lines", type: "scatter",
        line: { color: color("--faint"), width: 1.2, dash: "dash" }, hoverinfo: "skip",
      });
      const notes = view.front.flatMap(([ms, e]) => points.filter((p) => p.ms === ms && p.e === e).slice(0, 1)).map((p) => ({
        x: Math.log10(p.ms), y: p.e, text: text(p.entry), showarrow: false, xanchor: "left", yanchor: "bottom", xshift: 7,
        yshift: 6, font: { size: 12, color: color("--soft") }, bgcolor: color("--card"), opacity: 0.85, borderpad: 1,
      }));
      plot(speed, traces, { x: "milliseconds per 64 × 64 frame", y: speed.clientWidth < 560 ? "efficiency" : view.axis, xlog: true, notes });
    };
    drawings.push(draw);
    choose(one("#speed-choice"), "Efficiency on", data.speed.map((each) => each.label), (i) => { view = data.speed[i]; draw(); });
  }

  const line = (entry, x, y, more = {}) => ({
    x, y, mode: "lines+markers", type: "scatter", name: text(entry), connectgaps: false,
    line: { color: data.colors[entry], width: baselines.has(entry) ? 1.2 : 2, dash: baselines.has(entry) ? "dot" : dash(entry) },
    marker: { color: data.colors[entry], size: 6 },
    hovertemplate: "<b>%{fullData.name}</b><br>%{x:.4~g}: %{y:.1f}<extra></extra>", ...more,
  });
  const shown = (lines) => data.entries.filter((entry) => entry in lines && !off.has(entry));

  const curves = one("#curves");
  if (curves) {
    const box = one("#curves-choice");
    const picks = ["dataset", "kind", "score"].map((name) => {
      const span = document.createElement("span");
      span.id = `curves-${name}`;
      box.append(span);
      return span;
    });
    let set = data.curves[0], kind = set.kinds[0], score = kind.scores[0];
    const options = () => {  // over the threshold: also over recall, which needs no choice of one
      const names = kind.scores;
      if (kind.label !== "threshold") return names;
      const has = new Set(names.map((each) => each[0]));
      const pairs = ["precision", "rmse_lateral_nm"].filter((name) => has.has(name) && has.has("recall"));
      return [...names, ...pairs.map((name) => [name, `${names.find((each) => each[0] === name)[1]} over recall`, "recall"])];
    };
    const draw = () => {
      const [name, label, over] = score;
      const entries = shown(kind.lines).filter((entry) => kind.lines[entry][name]);
      const xs = (entry) => kind.lines[entry][over ?? "x"] ?? [];
      plot(curves, entries.map((entry) => line(entry, xs(entry), kind.lines[entry][name])), {
        x: over ? "recall (%)" : kind.axis, y: over ? label.replace(" over recall", "") : label,
        xlog: !over && wide(entries.flatMap(xs)),
      });
    };
    const pickScore = () => {
      const found = options();
      score = found.find((each) => each[0] === score[0] && each[2] === score[2]) ?? found[0];
      choose(picks[2], "Score", found.map((each) => each[1]), (i) => { score = found[i]; draw(); });
      const list = one("select", picks[2]);
      if (list) list.value = String(found.indexOf(score));
    };
    const pickKind = () => {
      kind = set.kinds.find((each) => each.label === kind.label) ?? set.kinds[0];
      choose(picks[1], "Over", set.kinds.map((each) => `over ${each.label}`), (i) => { kind = set.kinds[i]; pickScore(); draw(); });
      const list = one("select", picks[1]);
      if (list) list.value = String(set.kinds.indexOf(kind));
      pickScore();
    };
    choose(picks[0], "Dataset", data.curves.map((each) => each.label), (i) => { set = data.curves[i]; pickKind(); draw(); });
    pickKind();
    drawings.push(draw);
  }

  const sweeps = one("#sweeps");
  if (sweeps) {
    const box = one("#sweeps-choice");
    const picks = ["condition", "score"].map(() => box.appendChild(document.createElement("span")));
    let sweep = data.sweeps[0], score = sweep.scores[0];
    const draw = () => {
      const [name, label] = score;
      const entries = shown(sweep.lines);
      const traces = entries.map((entry) => {
        const own = sweep.lines[entry], low = own[`${name}_low`], high = own[`${name}_high`];
        const known = low && low.every((value) => value !== null) && high.every((value) => value !== null);
        const bars = known && {
          type: "data", symmetric: false, thickness: 1, width: 3, color: data.colors[entry],
          array: high.map((value, i) => value - own[name][i]), arrayminus: low.map((value, i) => own[name][i] - value),
        };
        return line(entry, own.x, own[name] ?? [], known ? { error_y: bars } : {});
      });
      plot(sweeps, traces, { x: sweep.axis, y: label, xlog: wide(entries.flatMap((entry) => sweep.lines[entry].x)) });
    };
    const pickScore = () => {
      score = sweep.scores.find((each) => each[0] === score[0]) ?? sweep.scores[0];
      choose(picks[1], "Score", sweep.scores.map((each) => each[1]), (i) => { score = sweep.scores[i]; draw(); });
      const list = one("select", picks[1]);
      if (list) list.value = String(sweep.scores.indexOf(score));
    };
    choose(picks[0], "Condition", data.sweeps.map((each) => each.label), (i) => { sweep = data.sweeps[i]; pickScore(); draw(); });
    pickScore();
    drawings.push(draw);
  }

  addEventListener("load", () => {
    if (typeof Plotly === "undefined") return;
    redraw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  });
})();
