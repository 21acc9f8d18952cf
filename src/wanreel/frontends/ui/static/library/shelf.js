// Shelf: the videos or pictures that a search finds, fetched page by page as they are looked at. Knows nothing of how they are drawn.
import * as api from "../core/api.js";

export const PAGE = 60;

export class Shelf {
  #query = {};
  #kind = "videos"; // or "images"
  #cursors = [];
  #pages = new Map(); // number: videos, or the promise of them
  #before = new Map(); // index: what stood there before a refresh, shown until the new page is here
  #round = 0;

  constructor(changed) {
    this.changed = changed; // called when anything can be drawn anew
    this.shape = null;
    this.error = null;
  }

  get total() {
    return this.shape ? this.shape.total : 0;
  }

  /** Looks for something else. */
  async search({ makes, ...query }) {
    this.#kind = makes;
    this.#query = query;
    this.#pages = new Map();
    this.#before.clear();
    this.shape = null;
    await this.refresh();
  }

  /** Looks again for the same: something came or went. */
  async refresh() {
    const round = ++this.#round;
    try {
      const shape = await api.get(`/v1/library?${this.#words({ limit: PAGE, makes: this.#kind })}`);
      if (round !== this.#round) return;
      for (const [page, videos] of this.#pages) {
        if (Array.isArray(videos)) videos.forEach((video, at) => this.#before.set(page * PAGE + at, video));
      }
      this.#pages = new Map();
      this.shape = shape;
      this.#cursors = [null, ...shape.cursors];
      this.error = null;
    } catch (error) {
      if (round !== this.#round) return;
      this.error = error;
    }
    this.changed();
  }

  /** The video at this place; null while it is being fetched. */
  at(index) {
    const page = Math.floor(index / PAGE);
    const videos = this.#pages.get(page);
    if (videos === undefined) this.#fetch(page);
    return (Array.isArray(videos) ? videos[index % PAGE] : this.#before.get(index)) ?? null;
  }

  /** The same, when it is here. */
  async wait(index) {
    const page = Math.floor(index / PAGE);
    if (!this.#pages.has(page)) this.#fetch(page);
    const videos = await this.#pages.get(page);
    return videos?.[index % PAGE] ?? null;
  }

  /** A video as it is now takes the place of what was known of it. */
  put(video) {
    for (const videos of this.#pages.values()) {
      const at = Array.isArray(videos) ? videos.findIndex((known) => known.id === video.id) : -1;
      if (at >= 0) videos[at] = video;
    }
    this.changed();
  }

  #fetch(page) {
    const round = this.#round;
    const cursor = this.#cursors[page];
    if (cursor === undefined) return;
    const answer = api.get(`/v1/${this.#kind}?${this.#words({ limit: PAGE, ...(cursor ? { after: cursor } : {}) })}`).then(
      (list) => {
        if (round !== this.#round) return [];
        this.#pages.set(page, list.data);
        this.changed();
        return list.data;
      },
      (error) => {
        if (round !== this.#round) return [];
        // A cursor whose video was deleted, mostly: the shape is old.
        if (error.status === 404) this.refresh();
        else {
          this.error = error;
          this.changed();
        }
        return [];
      },
    );
    this.#pages.set(page, answer);
  }

  #words(more) {
    const given = Object.entries({ ...this.#query, ...more }).filter(([, value]) => value !== "" && value !== null);
    return new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  }
}
