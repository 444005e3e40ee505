// The buttons: each asks first, says what will happen, and needs the agent's token, which stays in
// this page's memory. Nothing here can be done by a link: see src/agent/control.h.

import {byId, setText, show} from "./dom.js";
import {count} from "./format.js";

let token = "";

const QUESTIONS = {
  upgrade: (pool) => ({
    title: `Upgrade ${pool.name}?`,
    text: `${count(pool.number, "worker")} of version ${pool.version + 1} are started beside the old ones, ` +
      "which leave when all new ones are ready.",
    go: "Upgrade",
  }),
  upgrade_fleet: (pool) => ({
    title: `Upgrade ${pool.name} as a fleet?`,
    text: `Workers of version ${pool.version + 1} take the places of old ones step by step, ` +
      "without twice as many of them at a time.",
    go: "Fleet upgrade",
  }),
  rollback: (pool) => ({
    title: `Roll ${pool.name} back?`,
    text: `Workers of the version before ${pool.version} are started again, and take over.`,
    go: "Roll back",
    danger: true,
  }),
  set_workers: (pool) => ({
    title: `How many workers for ${pool.name}?`,
    text: `Now ${pool.number} are wanted, ${pool.readyCount()} are ready.`,
    go: "Scale",
    number: pool.number,
  }),
  stop_worker: (pool, worker) => ({
    title: `Stop worker #${worker.slot} of ${pool.name}?`,
    text: `Another one is started in its place; then pid ${worker.pid}, version ${worker.version}, ` +
      "is told to finish and leave.",
    go: "Stop it",
    danger: true,
    args: [`pid=${worker.pid}`],
  }),
};

export class Control {
  constructor(say) {
    this.say = say;
    this.dialog = byId("confirm");
    byId("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    this.dialog.addEventListener("close", () => { byId("confirm-token").value = ""; });
  }

  ask(command, pool, worker) {
    const question = QUESTIONS[command](pool, worker);
    this.asked = {command, pool: pool.name, question};
    setText(byId("confirm-title"), question.title);
    setText(byId("confirm-text"), question.text);
    setText(byId("confirm-go"), question.go);
    byId("confirm-go").className = question.danger ? "danger" : "primary";
    show(byId("confirm-number-label"), question.number !== undefined);
    byId("confirm-number").value = question.number ?? 0;
    this.askToken(!token);
    setText(byId("confirm-error"), "");
    this.dialog.showModal();
    const first = token ? (question.number === undefined ? "confirm-go" : "confirm-number")
                        : (question.number === undefined ? "confirm-token" : "confirm-number");
    byId(first).focus();
  }

  askToken(needed) {
    show(byId("confirm-token-label"), needed);
    show(byId("confirm-token-hint"), needed);
  }

  async go() {
    const {command, pool, question} = this.asked;
    const given = byId("confirm-token").value.trim();
    if (!byId("confirm-token-label").hidden) {
      if (!given) {
        setText(byId("confirm-error"), "The token is needed.");
        byId("confirm-token").focus();
        return;
      }
      token = given;
    }
    let args = question.args ?? [];
    if (question.number !== undefined) {
      const wanted = byId("confirm-number").value;
      if (!/^\d+$/.test(wanted)) {
        setText(byId("confirm-error"), "How many must be a whole number.");
        return;
      }
      args = [wanted];
    }
    byId("confirm-go").disabled = true;
    try {
      await this.send(pool, command, args);
      this.dialog.close();
    } catch (error) {
      setText(byId("confirm-error"), error.message);
    } finally {
      byId("confirm-go").disabled = false;
    }
  }

  async send(pool, command, args) {
    let answer;
    try {
      answer = await fetch("api/control", {
        method: "POST",
        headers: {"Content-Type": "application/json", Authorization: `Bearer ${token}`},
        body: JSON.stringify({pool, command, args}),
      });
    } catch (error) {
      throw new Error("The agent does not answer; whether it was done is not known.");
    }
    const said = await answer.json().catch(() => ({message: `status ${answer.status}`}));
    if (answer.status === 401) {
      token = "";
      this.askToken(true);
      byId("confirm-token").value = "";
      byId("confirm-token").focus();
      throw new Error("That token is not the agent's.");
    }
    if (!answer.ok) throw new Error(said.message || `status ${answer.status}`);
    this.say(said.message || "Done.");
  }
}
