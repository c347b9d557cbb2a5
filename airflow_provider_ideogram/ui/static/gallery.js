// Without this script the gallery works as well. It adds Airflow's own choice of light or dark, arrow keys, the way
// from image to image, a button that copies, and what is new while a run goes on.
"use strict";
(() => {
  const REFRESH_MILLISECONDS = 4000;
  const LIST = "ideogram-images";
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

  function remembered() {
    try {
      return JSON.parse(sessionStorage.getItem(LIST)) || { images: [] };
    } catch {
      return { images: [] };
    }
  }

  function rememberGrid() {
    const cards = document.querySelectorAll("[data-grid] .card");
    if (!cards.length) return;
    const list = { page: location.pathname + location.search, images: [...cards].map((card) => card.pathname) };
    try {
      sessionStorage.setItem(LIST, JSON.stringify(list));
    } catch {
      // Then there is no way from image to image.
    }
  }

  // What can't be shown says why: the server's answer in place of the image is plain text.
  async function explain(image) {
    const answer = await fetch(image.src).catch(() => null);
    if (!answer || answer.ok) return;
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
    const at = cards.indexOf(document.activeElement);
    const columns = cards.filter((card) => card.offsetTop === cards[0]?.offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    if (!cards.length || !(event.key in steps)) return;
    const to = at < 0 ? 0 : at + steps[event.key];
    if (!cards[to]) return;
    event.preventDefault();
    cards[to].focus();
  }

  function moveAround(event) {
    const links = { ArrowLeft: "[data-previous]", ArrowRight: "[data-next]", Escape: "[data-back]" };
    const link = event.key in links && document.querySelector(links[event.key]);
    if (link && !link.hidden) link.click();
  }

  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest("pre")) return;
    (document.querySelector("[data-one]") ? moveAround : moveInGrid)(event);
  });

  function linkNeighbours() {
    const { page, images } = remembered();
    const at = images.indexOf(location.pathname);
    if (at < 0) return;
    document.querySelector("[data-back]").href = page;
    for (const [name, address] of [["previous", images[at - 1]], ["next", images[at + 1]]]) {
      const link = document.querySelector(`[data-${name}]`);
      if (address) link.href = address;
      link.hidden = !address;
    }
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

  async function refresh() {
    const main = document.querySelector("main[data-live]");
    if (!main) return;
    if (!document.hidden) {
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
    const old = new Map([...main.querySelectorAll(".card")].map((card) => [card.outerHTML, card]));
    const focused = document.activeElement?.getAttribute("href");
    for (const card of fresh.querySelectorAll(".card")) {
      const same = old.get(card.outerHTML);
      if (same) card.replaceWith(same);
    }
    main.replaceChildren(...fresh.childNodes);
    if (!("live" in fresh.dataset)) delete main.dataset.live;
    if (focused && document.activeElement === document.body) {
      [...main.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    }
    rememberGrid();
  }

  addEventListener("DOMContentLoaded", () => {
    rememberGrid();
    if (document.querySelector("[data-one]")) linkNeighbours();
    offerToCopy();
    if (document.querySelector("main[data-live]")) setTimeout(refresh, REFRESH_MILLISECONDS);
  });
})();
