import type { Member, ObjectRange } from './scan.ts';

/** Bytes `start` to `end` are replaced by `text`; nothing is taken out where they are equal. */
export interface Edit {
  start: number;
  end: number;
  text: string;
}

/**
 * Takes out the members that `unwanted` picks, each with one comma. Spaces around the others stay.
 * `kept` is how many stay.
 */
export function removal(object: ObjectRange, unwanted: (member: Member) => boolean): { edits: Edit[]; kept: number } {
  const edits: Edit[] = [];
  let kept = 0;
  object.members.forEach((member, index) => {
    if (!unwanted(member)) {
      kept++;
      return;
    }
    const before = object.members[index - 1];
    const after = object.members[index + 1];
    // With a member left before it, its comma is the one in front; else the one behind.
    if (kept > 0 && before !== undefined) edits.push({ start: before.end, end: member.end, text: '' });
    else edits.push({ start: member.start, end: after?.start ?? member.end, text: '' });
  });
  return { edits, kept };
}

/** Puts `text`, one or more members, in front of an object's `kept` others. */
export function insertion(object: ObjectRange, text: string, kept: number): Edit {
  const at = object.start + 1;
  return { start: at, end: at, text: kept > 0 ? `${text},` : text };
}

/** The bytes with all edits made. Edits must not overlap; of two at one place the earlier in the list comes first. */
export function splice(bytes: Buffer, edits: readonly Edit[]): Buffer {
  return edits.length === 0 ? bytes : Buffer.concat(pieces(bytes, edits));
}

/** The same without a copy: pieces of `bytes`, and the texts between them. */
export function pieces(bytes: Buffer, edits: readonly Edit[]): Buffer[] {
  const parts: Buffer[] = [];
  let done = 0;
  for (const edit of edits.toSorted((a, b) => a.start - b.start)) {
    parts.push(bytes.subarray(done, edit.start), Buffer.from(edit.text));
    done = edit.end;
  }
  parts.push(bytes.subarray(done));
  return parts;
}
