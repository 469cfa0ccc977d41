import type { Consent } from "./settings.js";

/** Keeps a refusal for later pages. Nothing else is kept: to agree is asked for by the page. */
export class ConsentSwitch {
  #state: Consent;

  constructor(
    private readonly key: string,
    initial: Consent,
  ) {
    this.#state = initial;
  }

  get state(): Consent {
    try {
      if (localStorage.getItem(this.key) === "denied") return "denied";
    } catch {
      // No storage: nothing is kept.
    }
    return this.#state;
  }

  set state(state: Consent) {
    this.#state = state;
    try {
      if (state === "denied") localStorage.setItem(this.key, state);
      else localStorage.removeItem(this.key);
    } catch {
      // No storage: the page must say so again next time.
    }
  }
}
