/** A bearer token: a text, or a function that is asked before each request, for tokens that are renewed. */
export type ApiKey = string | (() => string | Promise<string>);

/** The organization that a token names, without checking the token; empty when it names none. */
export function organizationOf(token: string | undefined): string {
  try {
    const claims = (token ?? "").split(".")[1] ?? "";
    const { org_id } = JSON.parse(atob(claims.replace(/-/g, "+").replace(/_/g, "/")));
    return typeof org_id === "string" ? org_id : "";
  } catch {
    return "";
  }
}
