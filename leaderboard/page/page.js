"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  document.documentElement.classList.add("script");

  // Tabs: arrows, Home and End move; without this script all panels are shown below each other.
  for (const box of all("[data-tabs]")) {
    const tabs = all("[role=tab]", box);
    const choose = (chosen, focus) => {
      for (const tab of tabs) {
        const on = tab === chosen;
        tab.setAttribute("aria-selected", String(on));
        tab.tabIndex = on ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
      }
      if (focus) chosen.focus();
      chosen.parentElement.scrollTo({ left: chosen.offsetLeft - chosen.parentElement.offsetLeft - 40 });
    };
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => choose(tab, false));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(tabs[(to + tabs.length) % tabs.length], true);
      });
    });
    if (tabs.length) choose(tabs[0], false);
  }

  // Sorting: each head becomes a button; missing values stay at the end in both directions.
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    const body = one("tbody", table);
    heads.forEach((head, column) => {
      const label = one(".head", head);
      const button = document.createElement("button");
      button.type = "button";
      button.append(...label.childNodes);
      label.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const direction = before ? (before === "ascending" ? "descending" : "ascending") : head.dataset.start;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        const sign = direction === "ascending" ? 1 : -1;
        const numeric = head.classList.contains("num");
        const key = (row) => row.children[column].dataset.value;
        const rows = [...body.rows].sort((a, b) => {
          const left = key(a), right = key(b);
          if (left === "" || right === "") return (left === "") - (right === "");
          return sign * (numeric ? Number(left) - Number(right) : left.localeCompare(right));
        });
        body.append(...rows);
      });
    });
  }

  // Filter: every word must be in the name.
  const filter = one("#filter");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (element) => words.every((word) => element.dataset.model.toLowerCase().includes(word));
    for (const element of all("[data-model]")) element.hidden = !fits(element);
    for (const panel of all("[role=tabpanel]")) {
      const nothing = one(".nothing", panel);
      if (nothing) nothing.hidden = all("tbody tr", panel).some((row) => !row.hidden);
    }
    const first = all("table.sortable tbody tr", document.getElementById("panel-1"));
    one("#filter-status").textContent = `${first.filter((row) => !row.hidden).length} of ${first.length} models`;
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { filter.value = ""; apply(); }
  });
  if (filter.value) apply();

  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = one("code", button.parentElement);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  // Pictures: one magnification and one place for all of them.
  const zoom = one("#zoom");
  if (zoom) {
    const strips = all(".strip");
    for (const button of all("button", zoom)) {
      button.addEventListener("click", () => {
        all("button", zoom).forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
        strips.forEach((strip) => strip.style.setProperty("--z", button.dataset.zoom));
      });
    }
    for (const strip of strips) {
      strip.addEventListener("pointermove", (event) => {
        const shot = event.target.closest(".shot");
        if (!shot) return;
        const box = shot.getBoundingClientRect();
        strip.style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
        strip.style.setProperty("--y", `${(100 * (event.clientY - box.top)) / box.height}%`);
      });
    }

    const dialog = one("#large"), view = one("#large-view"), image = one("#large-image");
    let shots = [], at = 0, scale = 1, x = 0, y = 0, held = null;
    const place = () => { image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`; };
    const grow = (factor, px = 0, py = 0) => {
      const next = Math.min(16, Math.max(1, scale * factor));
      x = px - ((px - x) * next) / scale;
      y = py - ((py - y) * next) / scale;
      scale = next;
      if (scale === 1) { x = 0; y = 0; }
      place();
    };
    const show = (index) => {  // the place and magnification stay, so that models can be flicked through
      at = (index + shots.length) % shots.length;
      const source = one("img", shots[at]);
      image.src = source.src;
      image.alt = source.alt;
      one("#large-title").textContent = source.alt;
    };
    for (const shot of all("[data-large]")) {
      shot.addEventListener("click", () => {
        shots = all("figure", shot.closest(".strip")).filter((f) => !f.hidden).map((f) => one(".shot", f));
        scale = 1; x = 0; y = 0;
        show(shots.indexOf(shot));
        place();
        dialog.showModal();
      });
    }
    for (const b of all("[data-step]", dialog)) b.addEventListener("click", () => show(at + Number(b.dataset.step)));
    for (const b of all("[data-scale]", dialog)) b.addEventListener("click", () => grow(Number(b.dataset.scale)));
    one("[data-close]", dialog).addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight") show(at + 1);
      else if (event.key === "ArrowLeft") show(at - 1);
      else if (event.key === "+" || event.key === "=") grow(2);
      else if (event.key === "-") grow(0.5);
      else return;
      event.preventDefault();
    });
    view.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = view.getBoundingClientRect();
      grow(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
    }, { passive: false });
    view.addEventListener("pointerdown", (event) => {
      held = { x: event.clientX - x, y: event.clientY - y };
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (!held || scale === 1) return;
      x = event.clientX - held.x;
      y = event.clientY - held.y;
      place();
    });
    for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { held = null; });
    view.addEventListener("dblclick", () => grow(scale > 1 ? 1 / 16 : 4));
  }

  // Chart: plotly stands after this script, so it is drawn when everything is loaded.
  const source = one("#chart-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
  const shapes = [
    "M5.5 0a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z", "M.5 .5h10v10h-10z", "M5.5 0l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    "M5.5 .5l5.5 10h-11z", "M3.5 0h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z", "M2 0l3.5 3.5l3.5-3.5l2 2l-3.5 3.5l3.5 3.5l-2 2l-3.5-3.5l-3.5 3.5l-2-2l3.5-3.5l-3.5-3.5z",
    "M5.5 0l1.6 3.8l3.9 .3l-3 2.6l1 4.1l-3.5-2.2l-3.5 2.2l1-4.1l-3-2.6l3.9-.3z", "M5.5 0l5.5 4l-2.1 7h-6.8l-2.1-7z",
  ];
  const text = (value) => value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const choice = one("#chart-choice"), legend = one("#chart-legend"), target = one("#chart");
  let view = data.views[0];

  const item = (mark, label) => {
    const li = document.createElement("li");
    li.append(mark, label);
    legend.append(li);
  };
  for (const entry of data.entries) {
    const dot = document.createElement("i");
    dot.className = "dot";
    dot.style.background = data.colors[entry];
    item(dot, entry);
  }
  const gap = document.createElement("li");
  gap.className = "gap";
  legend.append(gap);
  data.engines.forEach((engine, i) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 11 11");
    path.setAttribute("d", shapes[i % shapes.length]);
    svg.append(path);
    item(svg, engine);
  });

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const narrow = target.clientWidth < 560;
    const traces = data.engines.map((engine, i) => {
      const points = view.points.filter((p) => p.engine === engine);
      return {
        x: points.map((p) => p.ms), y: points.map((p) => p.e), mode: "markers", type: "scatter",
        text: points.map((p) => text(p.entry)), name: text(engine),
        marker: {
          size: narrow ? 11 : 13, symbol: symbols[i % symbols.length], color: points.map((p) => data.colors[p.entry]),
          line: { width: 1.5, color: color("--card") },
        },
        hovertemplate: "<b>%{text}</b><br>efficiency %{y:.1f}<br>%{x:.3~g} ms per frame<extra>%{fullData.name}</extra>",
      };
    });
    traces.unshift({
      x: view.front.map((p) => p[0]), y: view.front.map((p) => p[1]), mode: "lines", type: "scatter",
      line: { color: color("--faint"), width: 1.2, dash: "dash" }, hoverinfo: "skip",
    });
    const ticks = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((first) => Number(`${first}e${power}`)));
    const axis = { color: color("--soft"), gridcolor: color("--hair"), zeroline: false, linecolor: color("--line"), ticks: "", automargin: true };
    // Names beside the points of the front, where there is room.
    const names = narrow ? [] : view.front.map(([ms, e]) => ({
      x: Math.log10(ms), y: e, text: text(view.points.find((p) => p.ms === ms && p.e === e).entry),
      showarrow: false, xanchor: "left", yanchor: "bottom", xshift: 7, yshift: 6, font: { size: 12, color: color("--soft") }, bgcolor: color("--card"), opacity: 0.85, borderpad: 1,
    }));
    Plotly.react(target, traces, {
      margin: { l: narrow ? 48 : 64, r: narrow ? 16 : 28, t: 28, b: 56 }, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", annotations: names,
      font: { family: style.getPropertyValue("--sans"), size: 13, color: color("--soft") },
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line"), font: { color: color("--ink") }, align: "left" },
      xaxis: { ...axis, type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(String), title: { text: "milliseconds per 64 × 64 frame", standoff: 14 } },
      yaxis: { ...axis, title: { text: narrow ? "efficiency" : text(view.axis), standoff: 10 } },
    }, { displayModeBar: false, responsive: true, scrollZoom: false });
  };
  data.views.forEach((each) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = each.label;
    button.setAttribute("aria-pressed", String(each === view));
    button.addEventListener("click", () => {
      view = each;
      all("button", choice).forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
      draw();
    });
    choice.append(button);
  });
  addEventListener("load", () => {
    if (typeof Plotly === "undefined") return;
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  });
})();
