// Pages and filters of the gallery. The page works without it: then the first clips are shown.
// The address tells what is looked at: #3 the third page, #ID a clip, or #page=2&category=dog.
(() => {
  "use strict";
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const place = element("clips");
  const choices = ["category", "scenario", "state"].map(element);
  const first = Array.from(place.children, (section) => section.outerHTML);

  // Clips and what the filters look at: in the data, or in files that are read when they are due.
  const due = new Map();
  const parts = new Map();
  window.reportPart = (name, value) => parts.set(name, value);
  function read(name) {
    if (!due.has(name)) {
      due.set(name, new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = `${data.folder}/${name}.js`;
        script.onload = () => done(script.remove());
        script.onerror = () => {
          due.delete(name);
          failed(new Error(`The folder ${data.folder} is not beside this page, or not whole.`));
        };
        document.head.append(script);
      }));
    }
    return due.get(name);
  }
  const starts = [0];
  (data.files || []).forEach(([, count]) => starts.push(starts[starts.length - 1] + count));
  const total = data.clips ? data.clips.length : starts[starts.length - 1];
  async function html(number) {
    if (number < first.length) return first[number];
    if (data.clips) return data.clips[number].html;
    const at = starts.findLastIndex((start) => start <= number);
    const name = data.files[at][0];
    await read(name);
    return parts.get(name)[number - starts[at]];
  }
  let every = data.clips;
  async function index() {
    if (every) return every;
    await Promise.all(data.index.map(([name]) => read(name)));
    every = data.index.flatMap(([name]) => parts.get(name)).map(([text, frames]) => ({
      text,
      frames: frames.map((frame) => frame.map(
        (own, kind) => own.map((number) => data.places[kind][number]))),
    }));
    data.index.forEach(([name]) => parts.delete(name));
    return every;
  }
  function forget() { // the files of clips read first, when there are many
    const held = [...parts.keys()];
    held.slice(0, Math.max(0, held.length - 40)).forEach((name) => {
      parts.delete(name);
      due.delete(name);
    });
  }

  let page = 0;
  let found = null; // the numbers of the clips that are looked at; null: all
  let turns = 0;
  const wanted = () => choices.map((choice) => (choice.value === "" ? -1 : Number(choice.value)));
  const sought = () => element("search").value.trim();
  const fits = (frame, want) =>
    want.every((value, kind) => value < 0 || frame[kind].includes(value));
  const counted = (count, what) =>
    `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

  async function show() {
    const turn = ++turns;
    const want = wanted();
    const text = sought().toLowerCase();
    try {
      if (text || want.some((value) => value >= 0)) {
        if (!every) element("hits").textContent = "looking ...";
        await index();
        if (turn !== turns) return;
      }
      filter(want, text);
      const pages = Math.max(1, Math.ceil((found ? found.length : total) / data.page));
      page = Math.min(Math.max(0, page), pages - 1);
      const numbers = Array.from(
        { length: Math.min(data.page, (found ? found.length : total) - page * data.page) },
        (_, at) => (found ? found[page * data.page + at] : page * data.page + at));
      const shown = await Promise.all(numbers.map(html));
      if (turn !== turns) return;
      place.innerHTML = shown.join("");
      forget();
      Array.from(place.children).forEach((section, at) => {
        section.querySelectorAll("figure").forEach((figure, which) => {
          figure.hidden = found !== null && !fits(every[numbers[at]].frames[which], want);
        });
      });
      element("where").textContent = `page ${(page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
      element("before").disabled = page === 0;
      element("after").disabled = page === pages - 1;
    } catch (error) {
      if (turn === turns) place.textContent = error.message;
    }
  }

  function filter(want, text) {
    let frames = 0;
    found = text || want.some((value) => value >= 0) ? [] : null;
    (every || []).forEach((clip, number) => {
      const own = clip.text.slice(clip.text.lastIndexOf(" ") + 1);
      // A frame's id begins with its clip's.
      if (text && !clip.text.includes(text) && !text.startsWith(`${own}_`)) return;
      const matching = clip.frames.filter((frame) => fits(frame, want)).length;
      if (!matching && want.some((value) => value >= 0)) return;
      frames += matching;
      if (found) found.push(number);
    });
    const clips = found ? found.length : total;
    element("hits").textContent =
      `${counted(clips, "clip")}, ${counted(every ? frames : data.frames, "frame")}`;
  }

  // The address, so that what is seen can be kept and sent, and the way back works.
  function address() {
    const asked = choices.filter((choice) => choice.value !== "");
    if (!asked.length && !sought()) return page ? `#${page + 1}` : "#gallery";
    const said = new URLSearchParams();
    asked.forEach((choice) => said.set(choice.id, choice.selectedOptions[0].textContent));
    if (sought()) said.set("search", sought());
    if (page) said.set("page", page + 1);
    return `#${said}`;
  }
  function follow() {
    const hash = decodeURIComponent(location.hash.slice(1));
    const said = new URLSearchParams(
      /^\d+$/.test(hash) ? { page: hash }
        : /^(category|scenario|state|search|page)=/.test(hash) ? location.hash.slice(1)
          : hash === "gallery" ? {} : { search: hash });
    choices.forEach((choice) => {
      const option = [...choice.options].find(
        (one) => one.value !== "" && one.textContent === said.get(choice.id));
      choice.value = option ? option.value : "";
    });
    element("search").value = said.get("search") || "";
    page = (parseInt(said.get("page"), 10) || 1) - 1;
    return show();
  }
  const turn = (step) => () => {
    page += step;
    history.pushState(null, "", address());
    element("gallery").scrollIntoView();
    show();
  };
  function choose() {
    page = 0;
    history.replaceState(null, "", address());
    show();
  }

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
  choices.forEach((choice) => choice.addEventListener("change", choose));
  element("search").addEventListener("input", choose);
  window.addEventListener("popstate", follow);
  element("filters").hidden = false;
  follow().then(() => {
    if (location.hash && !location.hash.startsWith("#gallery")) element("gallery").scrollIntoView();
  });
})();
