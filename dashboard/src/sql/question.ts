/** A statement that is ready to be run. */
export interface Question {
  title: string;
  /** What it answers. */
  description: string;
  statement: string;
}

/** A place in a statement for a value, as `{name:Type}`. */
export interface Parameter {
  name: string;
  type: string;
}

/** The question in a file: comments at its beginning describe the statement below them. */
export function questionOf(fileName: string, text: string): Question {
  const lines = text.trim().split("\n");
  const first = lines.findIndex((line) => !line.startsWith("--"));
  const description = lines
    .slice(0, first)
    .map((line) => line.replace(/^-- ?/, ""))
    .join(" ")
    .replaceAll(/\s+/g, " ")
    .trim();
  const title = fileName.replace(/\.sql$/, "").replaceAll("_", " ");
  return {
    title: title.charAt(0).toUpperCase() + title.slice(1),
    description,
    statement: lines.slice(first).join("\n").trim().replace(/;$/, ""),
  };
}

/** Texts, quoted names and comments: what looks like a parameter in them is none. */
const NOT_CODE =
  /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"|`(?:[^`\\]|\\[\s\S])*`|(?:--|# |#!)[^\n]*|\/\*[\s\S]*?\*\//;
const PARAMETER = /\{\s*([A-Za-z_]\w*)\s*:\s*([^{}]+?)\s*\}/;
/** A parameter's type may have texts itself, such as the name of a time zone. */
const TOKEN = new RegExp(`${NOT_CODE.source}|${PARAMETER.source}`, "g");

/** The parameters of a statement, each once, in order. */
export function parametersOf(statement: string): Parameter[] {
  const found = new Map<string, Parameter>();
  for (const [, name, type] of statement.matchAll(TOKEN)) {
    if (name !== undefined && type !== undefined && !found.has(name)) found.set(name, { name, type });
  }
  return [...found.values()];
}

const WEEK_MS = 7 * 86_400_000;

/** A value to begin with: the last week, the caller's organization. */
export function defaultOf({ name, type }: Parameter, orgId: string, now: number): string {
  const time = new Date(name === "from" ? now - WEEK_MS : now + 60_000).toISOString();
  if (/^DateTime/.test(type)) return time.slice(0, 19).replace("T", " ");
  if (/^Date/.test(type)) return time.slice(0, 10);
  const known: Record<string, string> = { org: orgId, limit: "10", weeks: "4", seconds: "86400", name: "revenue" };
  return known[name] ?? "";
}
