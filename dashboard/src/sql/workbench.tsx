"use client";

import { AnalyticsError } from "@tallyhouse/analytics-sdk";
import { createSqlClient, type SqlResult } from "@tallyhouse/analytics-sdk/sql";
import { type FormEvent, type KeyboardEvent, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { MarkedText } from "../marked-text";
import { Choice, Panel } from "../panels/panel";
import { useSession } from "../session/session";
import { defaultOf, parametersOf, type Question } from "./question";
import { Result } from "./result";

/** What to begin with: it answers also where nothing was sent. */
const FIRST: Question = {
  title: "What can be read",
  description: "The views that statements can name. DESCRIBE events lists the columns of one.",
  statement: "SHOW TABLES",
};

type Run = { state: "none" | "running" } | { state: "done"; result: SqlResult } | { state: "failed"; error: string };

/** A place to choose, change and run statements. */
export function Workbench({ questions }: { questions: Question[] }): ReactNode {
  const { state } = useSession();
  const orgId = state.status === "ready" ? state.orgId : "default";
  const all = useMemo(() => [FIRST, ...questions], [questions]);
  const [chosen, setChosen] = useState(FIRST.title);
  const [statement, setStatement] = useState(FIRST.statement);
  const [values, setValues] = useState<Record<string, string>>({});
  const [user, setUser] = useState("analyst");
  const [password, setPassword] = useState("");
  const [run, setRun] = useState<Run>({ state: "none" });
  const running = useRef<AbortController>(undefined);
  useEffect(() => () => running.current?.abort(), []);

  const parameters = useMemo(() => parametersOf(statement), [statement]);
  const givenOrDefault = (parameter: (typeof parameters)[number]): string =>
    values[parameter.name] ?? defaultOf(parameter, orgId, Date.now());

  /** Ends the statement that runs, also in ClickHouse. */
  const cancel = () => {
    running.current?.abort();
    setRun({ state: "none" });
  };

  const choose = (title: string) => {
    cancel();
    setChosen(title);
    setStatement(all.find((question) => question.title === title)?.statement ?? "");
  };

  const submit = async (event?: FormEvent) => {
    event?.preventDefault();
    running.current?.abort();
    const controller = new AbortController();
    running.current = controller;
    setRun({ state: "running" });
    const params = Object.fromEntries(parameters.map((parameter) => [parameter.name, givenOrDefault(parameter)]));
    const client = createSqlClient({ baseUrl: "", user, password });
    try {
      const result = await client.query(statement, { params, signal: controller.signal });
      if (!controller.signal.aborted) setRun({ state: "done", result });
    } catch (cause) {
      if (!controller.signal.aborted) setRun({ state: "failed", error: messageOf(cause) });
    }
  };

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void submit();
  };

  return (
    <>
      <Panel
        title="Statement"
        controls={
          <Choice
            label="Question"
            value={chosen}
            options={all.map(({ title }) => ({ value: title, title }))}
            onChange={choose}
          />
        }
      >
        <p className="hint">
          <MarkedText text={all.find(({ title }) => title === chosen)?.description ?? ""} />
        </p>
        <form onSubmit={(event) => void submit(event)}>
          <textarea
            aria-label="SQL statement"
            spellCheck={false}
            rows={12}
            value={statement}
            onChange={(event) => setStatement(event.target.value)}
            onKeyDown={onKeyDown}
          />
          {parameters.length > 0 && (
            <fieldset className="controls">
              <legend>Parameters</legend>
              {parameters.map((parameter) => (
                <label key={parameter.name} className="field">
                  <span>
                    {parameter.name} <small>{parameter.type}</small>
                  </span>
                  <input
                    value={givenOrDefault(parameter)}
                    onChange={(event) => setValues({ ...values, [parameter.name]: event.target.value })}
                  />
                </label>
              ))}
            </fieldset>
          )}
          <fieldset className="controls">
            <legend>Analyst</legend>
            <label className="field">
              <span>User</span>
              <input autoComplete="username" value={user} onChange={(event) => setUser(event.target.value)} />
            </label>
            <label className="field">
              <span>Password</span>
              <input
                type="password"
                autoComplete="current-password"
                value={password}
                onChange={(event) => setPassword(event.target.value)}
              />
            </label>
            <p className="hint">
              <code>tallyhouse analyst</code> prints both, <code>tallyhouse analyst ORGANIZATION</code> those of one
              organization. Where the service requires no tokens, <code>analyst</code> needs no password.
            </p>
          </fieldset>
          <button type="submit" className="primary" disabled={statement.trim() === ""}>
            Run <kbd>Ctrl+Enter</kbd>
          </button>
        </form>
      </Panel>
      <Panel title="Result">
        {run.state === "none" && <p className="empty">Run the statement to see its result here.</p>}
        {run.state === "running" && (
          <div className="toolbar">
            <p role="status">Running…</p>
            <button type="button" onClick={cancel}>
              Cancel
            </button>
          </div>
        )}
        {run.state === "failed" && (
          <div role="alert" className="notice bad">
            <p>{run.error}</p>
          </div>
        )}
        {run.state === "done" && <Result result={run.result} name={chosen} />}
      </Panel>
    </>
  );
}

function messageOf(cause: unknown): string {
  if (!(cause instanceof AnalyticsError)) return String(cause);
  if (cause.details.length > 0) return cause.details.map(({ message }) => message).join("; ");
  return `${cause.message} (${cause.code})`;
}
