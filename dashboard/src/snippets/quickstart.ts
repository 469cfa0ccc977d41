/** One step of a quickstart: what it does, and its code. */
export interface Step {
  title: string;
  /** In Markdown without structure. */
  text: string;
  blocks: { language: string; code: string }[];
}

/** The steps of a quickstart's page: its headings of the second level, with the text and the code below each. */
export function stepsOf(markdown: string): Step[] {
  const sections = markdown.split(/^## /m).slice(1);
  return sections.map((section) => {
    const [title = "", ...lines] = section.split("\n");
    const blocks: Step["blocks"] = [];
    const body = lines
      .join("\n")
      .replaceAll(/^```(\w*)[^\n]*\n([\s\S]*?)^```$/gm, (_, language: string, code: string) => {
        blocks.push({ language, code: code.trimEnd() });
        return "";
      });
    const text = body
      .replaceAll(/\[([^\]]+)\]\([^)]+\)/g, "$1")
      .replaceAll(/\s+/g, " ")
      .trim();
    return { title, text, blocks };
  });
}
