"use strict";
// Charts over their pictures, sorting tables, filtering transcripts, where one is on the page. Nothing here fetches, and
// nothing that a model wrote is ever taken for HTML: the page holds it as text already, and this only shows and hides.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // ---- charts: each panel is embedded on its own, so that panels wrap on a phone
  function withoutLegend(view, field) {
    const color = view.encoding && view.encoding.color;
    if (color && color.field === field) color.legend = null;
    for (const layer of view.layer || []) withoutLegend(layer, field);
    return view;
  }

  function own(spec, panel, field) {
    const made = { ...panel, width: "container", config: { ...spec.config, background: null, font: "system-ui, sans-serif" }, datasets: spec.datasets };
    made.autosize = { type: "fit-x", contains: "padding" };
    if (!field) return made;
    made.params = [...(panel.params || []), { name: "hidden", value: [] }];
    made.transform = [{ filter: `indexof(hidden, datum.${field}) < 0` }, ...(panel.transform || [])];
    return withoutLegend(made, field);
  }

  async function draw(figure) {
    const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const panels = figure.querySelector(".panels"), legend = figure.querySelector(".legend"), views = [];
    panels.hidden = false;
    try {
      for (const [place, panel] of spec.hconcat.entries()) {
        const target = panels.children[place];
        const done = await vegaEmbed(target, own(spec, panel, legend && figure.dataset.field), { renderer: "svg", actions: false, tooltip: { theme: "own" } });
        views.push(done.view);
      }
    } catch (error) { // the picture stays
      panels.hidden = true;
      console.error(figure.dataset.figure, error);
      return;
    }
    figure.querySelector(".picture").hidden = true;
    if (legend) switches(legend, views);
  }

  function switches(legend, views) {
    const hidden = new Set();
    legend.hidden = false;
    for (const item of all("li", legend)) {
      const button = document.createElement("button"), name = item.textContent;
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => {
        hidden.has(name) ? hidden.delete(name) : hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        for (const view of views) view.signal("hidden", Array.from(hidden)).runAsync();
      });
    }
  }

  // ---- tables
  const numberOf = (text) => {
    const found = text.replace(/\u2212/g, "-").replace(/[,\u2009]/g, "").match(/[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };

  function sortable(table) {
    for (const [column, head] of all("thead th", table).entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column, head));
    }
  }

  function sort(table, column, head) {
    const body = table.tBodies[0], text = (row) => row.cells[column].textContent.trim();
    const rows = Array.from(body.rows), numbers = rows.map((row) => numberOf(text(row)));
    const filled = rows.filter((row) => text(row)).length;
    const numeric = column > 0 && numbers.filter((n) => !Number.isNaN(n)).length * 2 > filled;
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numeric;
    const keyed = rows.map((row, i) => ({ row, key: numeric ? numbers[i] : text(row) }));
    const blank = (key) => key === "" || Number.isNaN(key);
    keyed.sort((a, b) => {
      if (blank(a.key) || blank(b.key)) return blank(a.key) - blank(b.key);
      const order = numeric ? a.key - b.key : a.key.localeCompare(b.key);
      return down ? -order : order;
    });
    for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...keyed.map(({ row }) => row));
  }

  // ---- transcripts
  function filtering(box) {
    const talks = all(".talk", box), value = (name) => box.querySelector(`[name="${name}"]`).value;
    function apply() {
      const words = value("words").trim().toLowerCase(), outcome = value("outcome"), level = value("level"), method = value("method");
      let shown = 0;
      for (const talk of talks) {
        const marks = JSON.parse(talk.dataset.outcomes);
        const [from, to] = [marks.base, marks[method]];
        const change = (from === "correct") === (to === "correct") ? "same" : to === "correct" ? "gained" : "lost";
        const fits = (!level || talk.dataset.level === level) && (!outcome || outcome === to || outcome === change);
        talk.hidden = !(fits && to !== undefined && (!words || talk.textContent.toLowerCase().includes(words)));
        shown += !talk.hidden;
        for (const turn of all("[data-method]", talk)) turn.hidden = turn.dataset.method !== "base" && turn.dataset.method !== method;
      }
      box.querySelector("output").textContent = `${shown} of ${talks.length} problems`;
    }
    box.querySelector(".filters").hidden = false;
    box.addEventListener("input", apply);
    apply();
  }

  // ---- where one is
  function following() {
    const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries)
        if (entry.isIntersecting) for (const [key, link] of links) link.classList.toggle("here", key === entry.target.id);
    }, { rootMargin: "-10% 0px -80% 0px" });
    for (const section of all("section[id]")) seen.observe(section);
  }

  const menu = document.querySelector("nav details"), wide = matchMedia("(min-width: 1080px)");
  const fold = () => { if (menu) menu.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  all("table.sortable").forEach(sortable);
  all(".transcripts").forEach(filtering);
  following();
  (async () => { for (const figure of all("figure.chart")) await draw(figure); document.documentElement.dataset.drawn = "yes"; })();
})();
