// The form for user and password.

import { change } from "./api.js";
import { field, fill, h } from "./dom.js";

/** Asks who is there until the server knows them. */
export class LogIn {
  /**
   * @param {string} text why it is asked for.
   * @param {function(Object)} done called with the session.
   */
  constructor(text, done) {
    this.user = h("input", {
      type: "text",
      name: "user",
      autocomplete: "username",
      required: true,
      autocapitalize: "none",
      spellcheck: "false",
    });
    this.password = h("input", {
      type: "password",
      name: "password",
      autocomplete: "current-password",
      required: true,
    });
    const problem = h("p.problem", { role: "alert" });
    const button = h("button.button.primary", { type: "submit" }, "Log in");
    this.element = h(
      "div.login",
      {},
      h(
        "form.panel",
        {
          onsubmit: async (event) => {
            event.preventDefault();
            button.disabled = true;
            fill(problem);
            try {
              done(await change("POST", "/session", { user: this.user.value, password: this.password.value }));
            } catch (error) {
              fill(problem, error.status === 401 ? "User or password are wrong." : error.message);
              this.password.value = "";
              this.password.focus();
            } finally {
              button.disabled = false;
            }
          },
        },
        h("h1", {}, "Log in"),
        h("p.muted", {}, text || "With the user and password of the queue server."),
        field("User", this.user),
        field("Password", this.password),
        problem,
        button,
      ),
    );
  }

  focus() {
    this.user.focus();
  }
}
