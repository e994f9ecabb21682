/** A Markdown table: words in the first column, figures in the others. */
export function markdownTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const rule = titles.map((_, i) => (i === 0 ? '---' : '---:'));
  return `${[titles, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`;
}
