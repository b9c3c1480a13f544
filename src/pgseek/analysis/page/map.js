"use strict";
// Texts reach the page as text only (textContent, fillText): nothing of a document is markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const count = data.x.length;
  const canvas = document.getElementById("map");
  const pen = canvas.getContext("2d");
  const card = document.getElementById("card");
  const search = document.getElementById("search");
  const matches = document.getElementById("matches");
  const shown = data.clusters.map(() => true);
  const lower = data.ids.map((id, i) => `${id}\n${data.titles[i]}\n${data.texts[i]}`.toLowerCase());
  let found = null; // whether each point matches the search; null without one
  let chosen = -1;
  let view = { scale: 1, x: 0, y: 0 };
  let box = { width: 1, height: 1 };
  let waiting = false;

  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < count; i++) {
    left = Math.min(left, data.x[i]); right = Math.max(right, data.x[i]);
    low = Math.min(low, data.y[i]); high = Math.max(high, data.y[i]);
  }
  const span = Math.max(right - left, high - low) || 1;
  const [middleX, middleY] = [(left + right) / 2, (low + high) / 2];

  const screenX = (i) => box.width / 2 + view.x + ((data.x[i] - middleX) / span) * unit();
  const screenY = (i) => box.height / 2 + view.y - ((data.y[i] - middleY) / span) * unit();
  const unit = () => Math.min(box.width, box.height) * 0.92 * view.scale;
  const visible = (i) => shown[data.of[i]];
  const lit = (i) => visible(i) && (found === null || found[i]);

  function trace(to, shape, x, y, r) {
    switch (shape) {
      case "s": to.rect(x - r, y - r, 2 * r, 2 * r); break;
      case "^": to.moveTo(x, y - r * 1.2); to.lineTo(x + r * 1.1, y + r); to.lineTo(x - r * 1.1, y + r); to.closePath(); break;
      case "v": to.moveTo(x, y + r * 1.2); to.lineTo(x + r * 1.1, y - r); to.lineTo(x - r * 1.1, y - r); to.closePath(); break;
      case "D": to.moveTo(x, y - r * 1.3); to.lineTo(x + r * 1.3, y); to.lineTo(x, y + r * 1.3); to.lineTo(x - r * 1.3, y); to.closePath(); break;
      case "P": to.rect(x - r * 1.2, y - r * 0.45, r * 2.4, r * 0.9); to.rect(x - r * 0.45, y - r * 1.2, r * 0.9, r * 2.4); break;
      case "x": to.rect(x - r * 0.5, y - r * 0.5, r, r); break;
      default: to.moveTo(x + r, y); to.arc(x, y, r, 0, 2 * Math.PI);
    }
  }

  function paint() {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    const radius = (count > 5000 ? 2 : count > 1000 ? 3 : 4) * Math.min(2, Math.sqrt(view.scale));
    // One path per cluster, the matches last: twenty thousand points are some forty calls to fill.
    for (const strong of found === null ? [true] : [false, true]) {
      data.clusters.forEach((cluster, number) => {
        if (!shown[number]) return;
        pen.beginPath();
        for (let i = 0; i < count; i++) {
          if (data.of[i] !== number || (found !== null && found[i] !== strong)) continue;
          const x = screenX(i), y = screenY(i);
          if (x > -9 && y > -9 && x < box.width + 9 && y < box.height + 9) {
            trace(pen, cluster.shape, x, y, strong && found !== null ? radius * 1.5 : radius);
          }
        }
        pen.globalAlpha = strong ? 0.75 : 0.1;
        pen.fillStyle = cluster.color;
        pen.fill("nonzero");
      });
    }
    pen.globalAlpha = 1;
    if (chosen >= 0) {
      pen.beginPath();
      pen.arc(screenX(chosen), screenY(chosen), radius + 5, 0, 2 * Math.PI);
      pen.lineWidth = 2.5;
      pen.strokeStyle = "#000";
      pen.stroke();
    }
  }

  function draw() {
    if (!waiting) { waiting = true; requestAnimationFrame(paint); }
  }

  function choose(i) {
    chosen = i;
    card.hidden = i < 0;
    if (i >= 0) {
      const cluster = data.clusters[data.of[i]];
      const lines = [["b", data.titles[i] || data.ids[i]], ["small", `${data.ids[i]} · ${cluster.label}`], ["div", data.texts[i]]];
      card.replaceChildren(...lines.map(([name, text]) => {
        const line = document.createElement(name);
        line.textContent = text;
        return line;
      }));
      const x = screenX(i), y = screenY(i);
      card.style.left = `${Math.max(4, Math.min(x + 14, box.width - card.offsetWidth - 4))}px`;
      card.style.top = `${Math.max(4, Math.min(y + 14, box.height - card.offsetHeight - 4))}px`;
    }
    draw();
  }

  function nearest(x, y, within) {
    let best = -1, least = within * within;
    for (let i = 0; i < count; i++) {
      if (!lit(i)) continue;
      const dx = screenX(i) - x, dy = screenY(i) - y, distance = dx * dx + dy * dy;
      if (distance < least) { least = distance; best = i; }
    }
    return best;
  }

  function step(dx, dy) {
    if (chosen < 0) return choose(nearest(box.width / 2, box.height / 2, Infinity));
    const x = screenX(chosen), y = screenY(chosen);
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === chosen || !lit(i)) continue;
      const along = (screenX(i) - x) * dx + (screenY(i) - y) * dy;
      const across = Math.abs((screenX(i) - x) * dy) + Math.abs((screenY(i) - y) * dx);
      // What lies aside counts twice, so that one goes where one points.
      if (along > 0.01 && across <= along * 2 && along + 2 * across < least) { least = along + 2 * across; best = i; }
    }
    if (best >= 0) choose(best);
  }

  function along(by) {
    for (let n = 1; n <= count; n++) {
      const i = (((chosen < 0 && by < 0 ? 0 : chosen) + by * n) % count + count) % count;
      if (lit(i)) return choose(i);
    }
  }

  function zoom(by, x, y) {
    const scale = Math.max(0.5, Math.min(200, view.scale * by));
    const factor = scale / view.scale;
    view = { scale, x: (view.x - (x - box.width / 2)) * factor + (x - box.width / 2), y: (view.y - (y - box.height / 2)) * factor + (y - box.height / 2) };
    choose(chosen);
  }

  function look() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = words.length ? lower.map((text) => words.every((word) => text.includes(word))) : null;
    told();
    choose(chosen >= 0 && lit(chosen) ? chosen : -1);
  }

  function told() {
    if (found === null) { matches.textContent = ""; return; }
    let number = 0;
    for (let i = 0; i < count; i++) number += lit(i) ? 1 : 0;
    matches.textContent = number === 1 ? "1 match" : `${number} matches`;
  }

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    const plane = canvas.parentElement;
    box = { width: plane.clientWidth, height: plane.clientHeight };
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    choose(chosen);
  }

  const buttons = data.clusters.map((cluster, number) => {
    const button = document.createElement("button");
    const sign = document.createElement("canvas");
    const label = document.createElement("span");
    button.type = "button";
    sign.width = sign.height = 32;
    const inner = sign.getContext("2d");
    inner.fillStyle = cluster.color;
    inner.beginPath();
    trace(inner, cluster.shape, 16, 16, 10);
    inner.fill();
    label.textContent = `${cluster.label} (${cluster.size})`;
    button.append(sign, label);
    button.addEventListener("click", () => { shown[number] = !shown[number]; pressed(); });
    const item = document.createElement("li");
    item.append(button);
    document.getElementById("legend").append(item);
    return button;
  });

  function pressed() {
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(shown[number])));
    told();
    choose(chosen >= 0 && lit(chosen) ? chosen : -1);
  }

  document.getElementById("all").addEventListener("click", () => { shown.fill(true); pressed(); });
  document.getElementById("none").addEventListener("click", () => { shown.fill(false); pressed(); });
  document.getElementById("reset").addEventListener("click", () => { view = { scale: 1, x: 0, y: 0 }; choose(-1); });
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") { canvas.focus(); along(1); } });

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX - view.x, y: event.offsetY - view.y };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      view.x = event.offsetX - held.x;
      view.y = event.offsetY - held.y;
      choose(chosen);
    } else {
      const i = nearest(event.offsetX, event.offsetY, 12);
      if (i !== chosen) choose(i);
    }
  });
  canvas.addEventListener("pointerleave", () => { if (!held && document.activeElement !== canvas) choose(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const done = {
      ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
      n: () => along(1), p: () => along(-1), Escape: () => choose(-1),
      "+": () => zoom(1.4, box.width / 2, box.height / 2), "=": () => zoom(1.4, box.width / 2, box.height / 2),
      "-": () => zoom(1 / 1.4, box.width / 2, box.height / 2),
    }[event.key];
    if (done && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); done(); }
  });
  window.addEventListener("resize", resize);
  pressed();
  resize();
})();
