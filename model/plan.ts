import { FORMS, type Form, MAX_LINES_OF } from './form.ts';
import { checkInteger, checkShare, type Random } from './random.ts';
import { MAX_LINES, MAX_QUERIES, REGISTER_NAMES } from './vocab.ts';

/** How a program is drawn. Every field has a default; see `DEFAULT_OPTIONS`. */
export interface ProgramOptions {
  /** Form of the reasoning; it changes nothing of what the program says. */
  readonly form?: Form;
  /** Number of hub registers: the first lines, reused at any later time. 1 to 8. */
  readonly hubs?: number;
  /** Number of cold registers: declared in the first half, used by no line, asked at the end. 0 to 32. */
  readonly coldRegisters?: number;
  /** Number of registers asked, 1 to 6. Default: 3 or 4, drawn for each program. */
  readonly queries?: number;
  /** Probability that an operand is a hub. */
  readonly hubShare?: number;
  /** Probability that an operand is one of the last `window` registers. */
  readonly recentShare?: number;
  /** Probability that an operand is any earlier register. What is left of 1 goes to literal digits. */
  readonly farShare?: number;
  /** How many lines back counts as recent, 1 to 59. */
  readonly window?: number;
}

export const DEFAULT_OPTIONS = Object.freeze({
  form: 'plain' as Form,
  hubs: 2,
  coldRegisters: 3,
  hubShare: 0.3,
  recentShare: 0.4,
  farShare: 0.1,
  window: 3,
} as const);

/** An operand of a line: a literal digit or an earlier register (by its line index). */
export type Operand =
  | { readonly type: 'literal'; readonly value: number }
  | { readonly type: 'register'; readonly register: number };

export type RegisterRole = 'hub' | 'cold' | 'ordinary';

/** One line of a program: `name = (left + right) mod 10`. */
export interface PlannedLine {
  /** Index in `REGISTER_NAMES`. */
  readonly name: number;
  readonly role: RegisterRole;
  readonly left: Operand;
  readonly right: Operand;
  readonly value: number;
}

/** What a program says, before it is put into words. */
export interface Plan {
  readonly lines: readonly PlannedLine[];
  /** Line indices of the registers asked, in order. */
  readonly queries: readonly number[];
}

/** Value of an operand, given the lines before it. */
export function operandValue(operand: Operand, lines: readonly PlannedLine[]): number {
  return operand.type === 'literal' ? operand.value : lines[operand.register]!.value;
}

const range = (from: number, end: number) =>
  Array.from({ length: Math.max(0, end - from) }, (_, index) => from + index);

/**
 * Draws a program.
 *
 * @throws {RangeError} naming option, value and bounds, if an option is out of bounds.
 */
export function planProgram(random: Random, lineCount: number, options: ProgramOptions = {}): Plan {
  const settings = { ...DEFAULT_OPTIONS, ...options };
  check(lineCount, settings);

  const names = random.shuffle(range(0, REGISTER_NAMES.length)).slice(0, lineCount);
  // At least the last two lines stay ordinary, where the program is long enough.
  const hubCount = Math.min(settings.hubs, Math.max(1, lineCount - 2));
  const queryCount = Math.min(settings.queries ?? random.integer(3, 4), lineCount);
  const coldCandidates = range(hubCount, Math.max(hubCount + 1, Math.floor(lineCount / 2)));
  const cold = lineCount < hubCount + 2 ? [] : random.shuffle(coldCandidates).slice(0, settings.coldRegisters);
  const coldSet = new Set(cold);

  const drawOperand = (line: number): Operand => {
    const where = random.fraction();
    const { hubShare, recentShare, farShare } = settings;
    const usable = (from: number) => range(from, line).filter((register) => !coldSet.has(register));
    if (line >= hubCount && where < hubShare) return { type: 'register', register: random.integer(0, hubCount - 1) };
    const recent = usable(Math.max(0, line - settings.window));
    if (line >= hubCount && where < hubShare + recentShare && recent.length > 0) {
      return { type: 'register', register: random.pick(recent) };
    }
    if (line >= hubCount && where < hubShare + recentShare + farShare) {
      return { type: 'register', register: random.pick(usable(0)) };
    }
    return { type: 'literal', value: random.integer(0, 9) };
  };

  const lines: PlannedLine[] = [];
  for (let line = 0; line < lineCount; line++) {
    const left = drawOperand(line);
    const right = drawOperand(line);
    const value = (operandValue(left, lines) + operandValue(right, lines)) % 10;
    const role = line < hubCount ? 'hub' : coldSet.has(line) ? 'cold' : 'ordinary';
    lines.push({ name: names[line]!, role, left, right, value });
  }
  return { lines, queries: drawQueries(random, lineCount, queryCount, hubCount, cold) };
}

/** One cold register (if there is one), one hub and the last register; then further cold ones, then any. */
function drawQueries(
  random: Random,
  lineCount: number,
  queryCount: number,
  hubCount: number,
  cold: readonly number[],
): number[] {
  const coldLeft = [...cold];
  const queries = new Set<number>();
  const firstCold = coldLeft.pop();
  if (firstCold !== undefined) queries.add(firstCold);
  queries.add(random.integer(0, hubCount - 1));
  queries.add(lineCount - 1);
  while (queries.size < queryCount) queries.add(coldLeft.pop() ?? random.integer(0, lineCount - 1));
  return random.shuffle([...queries]).slice(0, queryCount);
}

function check(lineCount: number, settings: Omit<Required<ProgramOptions>, 'queries'> & { queries?: number }): void {
  if (!FORMS.includes(settings.form)) {
    throw new RangeError(`form must be ${FORMS.join(' or ')}, got ${JSON.stringify(settings.form)}`);
  }
  checkInteger('lines', lineCount, 1, MAX_LINES_OF[settings.form]);
  checkInteger('hubs', settings.hubs, 1, 8);
  checkInteger('coldRegisters', settings.coldRegisters, 0, 32);
  checkInteger('window', settings.window, 1, MAX_LINES);
  if (settings.queries !== undefined) checkInteger('queries', settings.queries, 1, MAX_QUERIES);
  checkShare('hubShare', settings.hubShare);
  checkShare('recentShare', settings.recentShare);
  checkShare('farShare', settings.farShare);
  // Rounded, since shares such as 0.7, 0.2 and 0.1 add up to a little more than 1 in floating point.
  const sum = Number((settings.hubShare + settings.recentShare + settings.farShare).toFixed(9));
  checkShare('hubShare + recentShare + farShare', sum);
}
