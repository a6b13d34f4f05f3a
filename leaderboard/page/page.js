"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  document.documentElement.classList.add("script");

  // Tabs: arrows, Home and End move; without this script all panels are shown below each other.
  for (const box of all("[data-tabs]")) {
    const tabs = all("[role=tab]", box).filter((tab) => tab.closest("[data-tabs]") === box);
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
    for (const nothing of all(".nothing")) nothing.hidden = all("tbody tr", nothing.parentElement).some((row) => !row.hidden);
    const first = all("tbody tr", one("table.sortable"));
    one("#filter-status").textContent = `${first.filter((row) => !row.hidden).length} of ${first.length} models`;
  };
  filter?.addEventListener("input", apply);
  filter?.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { filter.value = ""; apply(); }
  });
  if (filter?.value) apply();

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

  // Pages of models: #m-... shows one of them instead of the tables; the way back leads to where one was.
  const pages = all(".model-page");
  const title = document.title;
  let place = 0;
  const route = () => {
    const before = one(".model-page.open");
    const page = pages.find((each) => `#${each.id}` === decodeURIComponent(location.hash));
    if (!before && page) place = scrollY;
    for (const each of pages) each.classList.toggle("open", each === page);
    document.documentElement.classList.toggle("one-model", Boolean(page));
    document.title = page ? `${page.dataset.title} · ${title}` : title;
    if (page) {
      scrollTo({ top: 0, behavior: "instant" });
      one("h1", page).focus({ preventScroll: true });
    } else if (before) {
      dispatchEvent(new Event("resize"));  // charts that were hidden find their width again
      scrollTo({ top: place, behavior: "instant" });
    }
  };
  addEventListener("hashchange", route);
  route();
})();
