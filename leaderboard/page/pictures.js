"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const zoom = one("#zoom");
  if (!zoom) return;

  // One magnification and one place for the pictures of all models: z, and the shares of a picture left of and above it.
  const strips = all(".strip");
  let z = 1, left = 0, above = 0;
  const put = () => {
    left = Math.min(Math.max(left, 0), 1 - 1 / z);
    above = Math.min(Math.max(above, 0), 1 - 1 / z);
    for (const strip of strips) {
      strip.style.setProperty("--z", z);
      strip.style.setProperty("--x", `${-100 * left * z}%`);
      strip.style.setProperty("--y", `${-100 * above * z}%`);
      strip.classList.toggle("zoomed", z > 1);
    }
    one("#zoom-now").textContent = `${Number(z.toPrecision(2))}×`;
  };
  const magnify = (factor, u = 0.5, v = 0.5) => {  // u, v: the share of the window that keeps its place
    const next = Math.min(16, Math.max(1, z * factor));
    left += u / z - u / next;
    above += v / z - v / next;
    z = next;
    put();
  };
  one("[data-zoom=in]", zoom).addEventListener("click", () => magnify(2));
  one("[data-zoom=out]", zoom).addEventListener("click", () => magnify(0.5));
  one("[data-zoom=reset]", zoom).addEventListener("click", () => magnify(1 / 16));

  let dragged = false;
  for (const strip of strips) {
    const fingers = new Map();
    const within = (event, shot) => {
      const box = shot.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    strip.addEventListener("wheel", (event) => {
      const shot = event.target.closest(".shot");
      if (!shot || !event.ctrlKey) return;
      event.preventDefault();
      magnify(event.deltaY < 0 ? 1.25 : 0.8, ...within(event, shot));
    }, { passive: false });
    strip.addEventListener("pointerdown", (event) => {
      const shot = event.target.closest(".shot");
      if (!shot) return;
      if (!fingers.size) dragged = false;
      fingers.set(event.pointerId, { shot, at: within(event, shot), moved: 0 });
    });
    strip.addEventListener("pointermove", (event) => {
      const finger = fingers.get(event.pointerId);
      if (!finger) return;
      const at = within(event, finger.shot);
      const others = [...fingers.values()].filter((other) => other !== finger);
      if (others.length) {
        const far = (p) => Math.hypot(p[0] - others[0].at[0], p[1] - others[0].at[1]);
        const middle = [(at[0] + others[0].at[0]) / 2, (at[1] + others[0].at[1]) / 2];
        if (far(finger.at) > 0.02) magnify(far(at) / far(finger.at), ...middle);
        dragged = true;
      } else if (z > 1) {
        finger.moved += Math.hypot(at[0] - finger.at[0], at[1] - finger.at[1]);
        if (finger.moved > 0.03) dragged = true;
        left -= (at[0] - finger.at[0]) / z;
        above -= (at[1] - finger.at[1]) / z;
        put();
      }
      finger.at = at;
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      strip.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
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
      if (dragged) { dragged = false; return; }
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
})();
