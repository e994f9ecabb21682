/** What the headers of forms say; nothing where two readers could read them in two ways. */

const BOUNDARY = /^[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]$/;
const HEADER = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)$/;
/** Two backslashes in a row end a quoted string for some readers and not for others. */
const PARAMETER = /\s*;\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\[^\\])*)"|([^\s"\\;,<>()]+))/y;

/** The boundary that a `Content-Type` names; undefined: it is not that of a form, or not plainly. */
export function boundaryOf(contentType: string | undefined): string | undefined {
  const [, rest] = /^multipart\/form-data(.*)$/i.exec(contentType ?? '') ?? [];
  const parameters = rest === undefined ? undefined : parametersOf(rest);
  const boundary = parameters?.get('boundary');
  const charset = parameters?.get('charset') ?? 'utf-8';
  return boundary !== undefined && BOUNDARY.test(boundary) && /^utf-?8$/i.test(charset) ? boundary : undefined;
}

/** The name that the head of a part gives it; undefined: none, or not plainly one. */
export function nameIn(head: string): string | undefined {
  const dispositions: string[] = [];
  for (const line of head.split('\r\n')) {
    const [, header, value] = HEADER.exec(line) ?? [];
    if (header === undefined || value === undefined) return undefined;
    if (header.toLowerCase() === 'content-disposition') dispositions.push(value.trim());
  }
  const [, rest] = dispositions.length === 1 ? (/^form-data(.*)$/i.exec(dispositions[0] ?? '') ?? []) : [];
  const parameters = rest === undefined ? undefined : parametersOf(rest);
  return parameters?.get('name');
}

/** Undefined where readers could differ: twice the same, or a name or boundary in the extended notation of RFC 2231. */
function parametersOf(text: string): Map<string, string> | undefined {
  const parameters = new Map<string, string>();
  const end = text.trimEnd().replace(/;$/, '').trimEnd().length;
  let at = 0;
  while (at < end) {
    PARAMETER.lastIndex = at;
    const [all, name, quoted, token] = PARAMETER.exec(text) ?? [];
    if (all === undefined || name === undefined) return undefined;
    const key = name.toLowerCase();
    if (parameters.has(key) || /^(name|boundary|charset)\*/.test(key)) return undefined;
    parameters.set(key, quoted?.replaceAll(/\\(.)/g, '$1') ?? token ?? '');
    at += all.length;
  }
  return parameters;
}
