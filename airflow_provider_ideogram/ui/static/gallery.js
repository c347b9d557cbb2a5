// Without this script the gallery works as well. It adds Airflow's own choice of light or dark, arrow keys, the way
// from image to image, buttons that copy, searches without the button, and what is new while a run goes on.
"use strict";
(() => {
  const REFRESH_MILLISECONDS = 4000;
  const MAX_RETRIES = 5;
  const REM = 16;
  const LEAST_COMPARED = 2;
  const MOST_COMPARED = 4;
  const MOST_SELECTED = 100;
  const SHARES = 100; // a row whose shares are less than 1 in all would not be filled
  const root = document.documentElement;

  function applyTheme() {
    let theme = null;
    try {
      theme = localStorage.getItem("theme"); // where Airflow's UI keeps it
    } catch {
      // Storage may be forbidden; the system's choice counts then.
    }
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }
  applyTheme();
  addEventListener("storage", applyTheme);

  // The script sets what the page's security policy forbids in the markup: each cell's share of its row.
  function justify(parent) {
    const row = parseFloat(getComputedStyle(root).getPropertyValue("--row")) * REM;
    for (const grid of parent.querySelectorAll("[data-grid]")) {
      for (const cell of grid.querySelectorAll("[data-ratio]")) {
        const ratio = Number(cell.dataset.ratio);
        cell.style.flex = `${ratio * SHARES} 1 ${ratio * row}px`;
        cell.querySelector(".frame").style.aspectRatio = ratio;
      }
      grid.classList.add("is-justified");
    }
  }

  // What can't be shown says why: the server's answer in place of the image is plain text.
  async function explain(image, retries = MAX_RETRIES) {
    const answer = await fetch(image.src).catch(() => null);
    if (!answer) return;
    if (answer.status === 503 && retries) {
      const seconds = Number(answer.headers.get("Retry-After")) || 2;
      setTimeout(() => explain(image, retries - 1), seconds * 1000 * (1 + Math.random()));
      return;
    }
    if (answer.ok) {
      if (retries < MAX_RETRIES) image.src = image.src; // eslint-disable-line no-self-assign
      return;
    }
    const why = document.createElement("span");
    why.className = "why";
    const isText = (answer.headers.get("Content-Type") || "").startsWith("text/plain");
    why.textContent = isText ? await answer.text() : "The image can't be shown.";
    const missing = document.createElement("span");
    missing.className = "missing";
    missing.append(why);
    image.replaceWith(missing);
  }
  addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) explain(event.target);
  }, true);

  function moveInGrid(event) {
    const cards = [...document.querySelectorAll("[data-grid] .card")];
    const at = cards.indexOf(document.activeElement.closest(".cell")?.querySelector(".card"));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };
    if (!cards.length || !(event.key in steps)) return;
    const isAcross = event.key === "ArrowDown" || event.key === "ArrowUp";
    const to = at < 0 ? cards[0] : isAcross ? inNextRow(cards, at, steps[event.key]) : cards[at + steps[event.key]];
    if (!to) return;
    event.preventDefault();
    to.focus();
  }

  function select(key) {
    if (key === "c") document.querySelector("[data-compare]")?.requestSubmit();
    else document.activeElement.closest(".cell")?.querySelector(".pick input:enabled")?.click();
  }

  function selected() {
    return [...document.querySelectorAll(".pick input:checked")];
  }

  function canCompare() {
    const count = selected().length;
    return count >= LEAST_COMPARED && count <= MOST_COMPARED;
  }

  function showSelection() {
    const form = document.querySelector("[data-compare]");
    if (!form) return;
    const count = selected().length;
    for (const box of document.querySelectorAll(".pick input")) {
      box.disabled = count >= MOST_SELECTED && !box.checked;
    }
    form.querySelector("[data-selected]").textContent = `${count} selected`;
    form.querySelector("button:not([formaction])").disabled = !canCompare();
  }
  addEventListener("change", showSelection);
  addEventListener("reset", () => setTimeout(showSelection));

  // The card of the row above or below whose middle is nearest: rows have different numbers of cards.
  function inNextRow(cards, at, step) {
    const box = (card) => card.getBoundingClientRect();
    const middle = (card) => box(card).left + box(card).width / 2;
    const top = (card) => Math.round(box(card).top);
    let first = at;
    while (cards[first] && top(cards[first]) === top(cards[at])) first += step;
    if (!cards[first]) return null;
    const row = cards.filter((card) => top(card) === top(cards[first]));
    const distance = (card) => Math.abs(middle(card) - middle(cards[at]));
    return row.reduce((best, card) => (distance(card) < distance(best) ? card : best));
  }

  function moveAround(event) {
    const links = {
      ArrowLeft: "[data-previous]", ArrowRight: "[data-next]", Escape: "[data-back]", z: "[data-zoom]",
    };
    const link = event.key in links && document.querySelector(links[event.key]);
    if (link) link.click();
  }

  addEventListener("keydown", (event) => {
    const takesKeys = event.target.closest("pre, dialog, input:not([type=checkbox]), select");
    if (event.altKey || event.ctrlKey || event.metaKey || takesKeys) return;
    const search = event.key === "/" && document.querySelector("[data-find] [type=search]");
    const isOne = document.querySelector("[data-one]");
    if (event.key === "?") document.querySelector("[data-keys]").showModal();
    else if (search) {
      event.preventDefault();
      search.select();
    } else if (!isOne && (event.key === "x" || event.key === "c")) select(event.key);
    else if (!event.shiftKey) (isOne ? moveAround : moveInGrid)(event);
  });

  function offerHelp() {
    const button = document.querySelector("[data-help]");
    button.hidden = false;
    button.addEventListener("click", () => document.querySelector("[data-keys]").showModal());
  }

  addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const zoom = event.target.closest("[data-zoom]");
    const outside = event.target.closest("[data-airflow]");
    if (zoom) zoom.closest("figure").classList.toggle("zoomed");
    // Airflow shows the gallery in a frame that may not leave Airflow's page: the page around it follows the link.
    else if (outside && parent !== window) {
      const link = parent.document.createElement("a");
      link.href = outside.href;
      link.target = outside.target;
      link.rel = "noopener";
      parent.document.body.append(link);
      link.click();
      link.remove();
    } else return;
    event.preventDefault();
  });

  // The way back from an image leads to its card.
  function focusCard() {
    const card = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (card) card.focus();
  }

  function offerToCopy() {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const text = document.getElementById(button.dataset.copy);
        try {
          await navigator.clipboard.writeText(text.textContent);
        } catch {
          // Pages without TLS have no clipboard: what is selected can be copied by hand.
          getSelection().selectAllChildren(text);
          if (!document.execCommand("copy")) return;
        }
        button.textContent = "Copied";
      });
    }
  }

  // An address has only what is asked for.
  addEventListener("submit", (event) => {
    const isComparison = event.target.matches("[data-compare]") && !event.submitter?.hasAttribute("formaction");
    if (isComparison && !canCompare()) event.preventDefault();
    if (!event.target.matches("[data-find]")) return;
    for (const field of event.target.elements) field.disabled ||= !field.value;
  });
  addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("[data-find] :disabled")) field.disabled = false;
  });
  addEventListener("change", (event) => {
    if (event.target.matches("[data-find] select")) event.target.form.requestSubmit();
  });

  async function refresh() {
    const main = document.querySelector("main[data-live]");
    if (!main) return;
    // What is typed or selected would be lost.
    const isInUse = main.querySelector("[data-find]:focus-within, .pick :checked, .pick :focus");
    if (!document.hidden && !isInUse) {
      const answer = await fetch(location.href).catch(() => null);
      if (answer?.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
        update(main, fresh);
      }
    }
    setTimeout(refresh, REFRESH_MILLISECONDS);
  }

  // Cards that did not change stay as they are, with the images in them and the focus on them.
  function update(main, fresh) {
    justify(fresh);
    const old = new Map([...main.querySelectorAll(".card")].map((card) => [card.outerHTML, card]));
    const focused = document.activeElement?.getAttribute("href");
    for (const card of fresh.querySelectorAll(".card")) {
      const same = old.get(card.outerHTML);
      if (same) card.replaceWith(same);
    }
    const form = main.querySelector("[data-find]"); // with what is typed
    if (form) fresh.querySelector("[data-find]")?.replaceWith(form);
    main.replaceChildren(...fresh.childNodes);
    showSelection();
    if (!("live" in fresh.dataset)) delete main.dataset.live;
    if (focused && document.activeElement === document.body) {
      [...main.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    }
  }

  addEventListener("cards-added", () => justify(document));
  addEventListener("DOMContentLoaded", () => {
    justify(document);
    focusCard();
    offerToCopy();
    offerHelp();
    showSelection();
    if (document.querySelector("main[data-live]")) setTimeout(refresh, REFRESH_MILLISECONDS);
  });
})();
