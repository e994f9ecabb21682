import { FILLERS } from './filler.ts';
import type { Form } from './form.ts';
import {
  DEFAULT_OPTIONS,
  type Operand,
  operandValue,
  type Plan,
  type PlannedLine,
  type ProgramOptions,
  planProgram,
  type RegisterRole,
} from './plan.ts';
import { type Lookup, type Message, type Program, type Query, TOKEN_KINDS, type TokenKind } from './program.ts';
import { createRandom, type Random } from './random.ts';
import { decode, digitToken, lineToken, nameToken, queryToken, REGISTER_NAMES, TOKEN, valueToken } from './vocab.ts';

/**
 * Draws a program and writes it down with its reasoning and answer.
 *
 * @param random a stream, or a seed to start one.
 * @param lines number of lines, 1 to `MAX_LINES_OF` of the form (59; verbose 45).
 * @throws {RangeError} naming option, value and bounds, if an argument is out of bounds.
 */
export function makeProgram(random: Random | number, lines: number, options: ProgramOptions = {}): Program {
  const plan = planProgram(typeof random === 'number' ? createRandom(random) : random, lines, options);
  return writeProgram(plan, options.form ?? DEFAULT_OPTIONS.form);
}

const kindIndex = new Map(TOKEN_KINDS.map((kind, index) => [kind, index]));

function writeProgram(plan: Plan, form: Form): Program {
  const { lines } = plan;
  const ids: number[] = [];
  const kinds: number[] = [];
  const lookups: Lookup[] = [];
  const copies: number[][] = lines.map(() => []);
  const registerName = (register: number) => REGISTER_NAMES[lines[register]!.name]!;
  const write = (kind: TokenKind, ...tokens: number[]) => {
    ids.push(...tokens);
    for (const _ of tokens) kinds.push(kindIndex.get(kind)!);
  };
  const operandToken = (operand: Operand) =>
    operand.type === 'literal' ? digitToken(operand.value) : nameToken(lines[operand.register]!.name);
  const filledLine = (line: PlannedLine) => ({
    name: nameToken(line.name),
    left: operandToken(line.left),
    right: operandToken(line.right),
    leftValue: operandValue(line.left, lines),
    rightValue: operandValue(line.right, lines),
  });
  const definition = (line: PlannedLine) => [nameToken(line.name), operandToken(line.left), operandToken(line.right)];
  // Labels count down, so that the last line is always L1 and the end can be seen without comparing labels.
  const labelNumber = (index: number) => lines.length - index;
  const lookUp = (register: number, where: Lookup['where']) =>
    lookups.push({
      tokenIndex: ids.length,
      register: registerName(register),
      earlierPositions: [...copies[register]!],
      where,
    });
  const writeOperand = (operand: Operand, separator: number) => {
    write('operand-name', operandToken(operand));
    const value = valueToken(operandValue(operand, lines));
    if (operand.type === 'register') {
      lookUp(operand.register, 'reasoning');
      copies[operand.register]!.push(ids.length);
      write('operand-lookup', value);
    } else {
      write('operand-literal', value);
    }
    write('structure', separator);
  };

  write('prompt', TOKEN.bos);
  if (form === 'verbose') write('prompt', TOKEN.system, TOKEN.verbose);
  write('prompt', TOKEN.user);
  const userStart = ids.length;
  for (const [index, line] of lines.entries()) {
    write('prompt', lineToken(labelNumber(index)), ...definition(line), TOKEN.colon);
  }
  for (const [index, register] of plan.queries.entries()) {
    write('prompt', queryToken(index + 1), nameToken(lines[register]!.name));
  }
  write('prompt', TOKEN.assistant, TOKEN.think);
  const promptLength = ids.length;

  for (const [index, line] of lines.entries()) {
    write(index === 0 ? 'first-label' : 'line-label', lineToken(labelNumber(index)));
    write('copied-definition', ...definition(line));
    write('structure', TOKEN.colon);
    writeOperand(line.left, TOKEN.plus);
    writeOperand(line.right, TOKEN.arrow);
    write('result-name', nameToken(line.name));
    copies[index]!.push(ids.length);
    write('result-value', valueToken(line.value));
    write('filler', ...FILLERS[form](filledLine(line)));
    write('structure', TOKEN.semicolon);
  }
  const thinkEnd = ids.length;
  write('think-end', TOKEN.thinkEnd);

  for (const [index, register] of plan.queries.entries()) {
    write('answer-name', queryToken(index + 1), nameToken(lines[register]!.name));
    lookUp(register, 'answer');
    write('answer-lookup', valueToken(lines[register]!.value));
  }
  write('structure', TOKEN.eos);

  const prompt = decode(ids.slice(userStart, promptLength - 2));
  const system: Message[] = form === 'verbose' ? [{ role: 'system', content: decode([TOKEN.verbose]) }] : [];
  return {
    form,
    messages: [...system, { role: 'user', content: prompt }],
    prompt,
    reasoning: decode(ids.slice(promptLength, thinkEnd)),
    answer: decode(ids.slice(thinkEnd + 1, -1)),
    ids,
    kinds,
    promptLength,
    thinkEnd,
    lookups,
    queries: plan.queries.map((register, index) => ({
      label: `Q${index + 1}`,
      register: registerName(register),
      value: lines[register]!.value,
      class: queryClass(lines[register]!.role, register === lines.length - 1),
    })),
    registers: lines.map((line, index) => ({
      label: `L${labelNumber(index)}`,
      register: registerName(index),
      value: line.value,
      role: line.role,
    })),
  };
}

function queryClass(role: RegisterRole, isLast: boolean): Query['class'] {
  if (role !== 'ordinary') return role;
  return isLast ? 'last' : 'other';
}
