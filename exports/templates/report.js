// Pages and filters of the gallery. The page works without it: then the first clips are shown.
(() => {
  "use strict";
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const place = element("clips");
  Array.from(place.children).forEach((section, number) => {
    data.clips[number].html = section.outerHTML;
  });
  const choices = ["category", "scenario", "state"].map(element);
  let page = 0;
  let found = data.clips;

  const wanted = () => choices.map((choice) => (choice.value === "" ? -1 : Number(choice.value)));
  const fits = (frame, want) =>
    want.every((value, kind) => value < 0 || frame[kind].includes(value));

  const counted = (count, what) =>
    `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / data.page));
    page = Math.min(Math.max(0, page), pages - 1);
    const shown = found.slice(page * data.page, (page + 1) * data.page);
    const want = wanted();
    place.innerHTML = shown.map((clip) => clip.html).join("");
    Array.from(place.children).forEach((section, number) => {
      section.querySelectorAll("figure").forEach((figure, place) => {
        figure.hidden = !fits(shown[number].frames[place], want);
      });
    });
    element("where").textContent = `page ${page + 1} of ${pages}`;
    element("before").disabled = page === 0;
    element("after").disabled = page === pages - 1;
  }

  function filter() {
    const want = wanted();
    const text = element("search").value.trim().toLowerCase();
    let frames = 0;
    found = data.clips.filter((clip) => {
      if (text && !clip.text.includes(text)) return false;
      const matching = clip.frames.filter((frame) => fits(frame, want)).length;
      frames += matching;
      return matching > 0 || want.every((value) => value < 0);
    });
    element("hits").textContent =
      `${counted(found.length, "clip")}, ${counted(frames, "frame")}`;
    page = 0;
    show();
  }

  const turn = (step) => () => {
    page += step;
    show();
    element("gallery").scrollIntoView();
  };
  // The moment of a sound event: where its picture, its mark or its button is clicked.
  place.addEventListener("click", (event) => {
    const asked = event.target.closest("[data-at]");
    const film = asked && asked.closest("section").querySelector("video");
    if (!film) return;
    place.querySelectorAll("video").forEach((other) => other !== film && other.pause());
    film.currentTime = Number(asked.dataset.at);
    film.play();
  });
  place.addEventListener("timeupdate", (event) => {
    const section = event.target.closest("section");
    const share = event.target.currentTime / section.style.getPropertyValue("--length");
    section.querySelector(".now").style.left = `${Math.min(100, 100 * share)}%`;
  }, true);
  element("before").addEventListener("click", turn(-1));
  element("after").addEventListener("click", turn(1));
  choices.forEach((choice) => choice.addEventListener("change", filter));
  element("search").addEventListener("input", filter);
  element("filters").hidden = false;
  filter();
  page = (parseInt(location.hash.slice(1), 10) || 1) - 1; // report.html#3 opens the third page
  show();
})();
