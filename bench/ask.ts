import { Agent, fetch } from 'undici';
import { z } from 'zod';
import type { Program } from '../model/program.ts';

/** No answer takes as long; what does, hangs. */
const ANSWER_MS = 600_000;
/** The default gives up after 300 s without a head, and an answer that is not streamed begins at its end. */
const patient = new Agent({ headersTimeout: ANSWER_MS, bodyTimeout: ANSWER_MS });

/** The public option that says how a request's cache is managed. */
export interface CacheOption {
  profile?: string;
  budget_tokens?: number;
  mode?: 'enforce' | 'shadow' | 'off';
}

/** What is asked, and the text of the right answer. */
export type Asked = Pick<Program, 'messages' | 'answer'>;

export interface AskOptions {
  /** Default: crystal-mini. */
  model?: string | undefined;
  /** undefined: as the server decides. */
  maxTokens?: number | undefined;
  cache?: CacheOption | undefined;
  /** More members of the body, for an engine without a gateway. */
  xargs?: Readonly<Record<string, string | number>> | undefined;
}

export interface Answer<Task extends Asked = Program> {
  program: Task;
  content: string;
  /** `content` contains the whole answer line. */
  exact: boolean;
  /** The thinking ended: there is text after it. */
  thinkingEnded: boolean;
  promptTokens: number;
  generatedTokens: number;
}

const Completion = z.object({
  choices: z.tuple([z.object({ message: z.object({ content: z.string().nullish() }) })]),
  usage: z.object({ prompt_tokens: z.number(), completion_tokens: z.number() }),
});

/** Sends one program, greedily decoded, to an OpenAI endpoint (its root, without /v1). Rejects on any error answer. */
export async function ask<Task extends Asked>(
  baseUrl: string,
  program: Task,
  options: AskOptions,
): Promise<Answer<Task>> {
  const response = await fetch(`${baseUrl}/v1/chat/completions`, {
    method: 'POST',
    dispatcher: patient,
    signal: AbortSignal.timeout(ANSWER_MS),
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: options.model ?? 'crystal-mini',
      messages: program.messages,
      temperature: 0,
      max_tokens: options.maxTokens,
      crystal_kv: options.cache,
      vllm_xargs: options.xargs,
    }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${baseUrl} answered ${response.status}: ${text.slice(0, 500)}`);
  const { choices, usage } = Completion.parse(JSON.parse(text));
  const content = choices[0].message.content ?? '';
  return {
    program,
    content,
    exact: content.includes(program.answer),
    thinkingEnded: content.trim() !== '',
    promptTokens: usage.prompt_tokens,
    generatedTokens: usage.completion_tokens,
  };
}

/** Sends all programs, at most `concurrency` at a time; the answers are in their order. */
export async function askAll<Task extends Asked>(
  baseUrl: string,
  programs: readonly Task[],
  options: Omit<AskOptions, 'xargs'> & {
    concurrency: number;
    onAnswer?: (answer: Answer<Task>) => void;
    xargsOf?: ((index: number) => Readonly<Record<string, string | number>>) | undefined;
  },
): Promise<Answer<Task>[]> {
  const answers: Answer<Task>[] = [];
  const queue = [...programs.entries()];
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, program] = next;
      const answer = await ask(baseUrl, program, { ...options, xargs: options.xargsOf?.(index) });
      answers[index] = answer;
      options.onAnswer?.(answer);
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, work));
  return answers;
}

type Length = Pick<Answer, 'promptTokens' | 'generatedTokens'>;

/** Blocks beyond the prompt's that a whole cache holds at the end; the last token is never computed. */
export function outputBlocks(answer: Length, blockSize: number): number {
  const blocks = (tokens: number) => Math.ceil(tokens / blockSize);
  return blocks(answer.promptTokens + answer.generatedTokens - 1) - blocks(answer.promptTokens);
}

/** `share` of the blocks that these answers' thinking takes with a full cache, rounded up to whole blocks. */
export function budgetBlocks(fullAnswers: readonly Length[], share: number, blockSize: number): number {
  const sum = fullAnswers.reduce((total, answer) => total + outputBlocks(answer, blockSize), 0);
  return Math.ceil((share * sum) / fullAnswers.length);
}
