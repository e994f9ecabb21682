import { createRandom } from '../../model/random.ts';
import { mean, median, round } from '../statistics.ts';
import type { Context, Measured } from './measures.ts';
import type { Vllm, VllmRequest } from './process.ts';
import type { Sizes } from './sizes.ts';
import type { Arms } from './system.ts';

/** Token ids that are words of crystal-mini's programs. The chats are made up: nothing in them is right or wrong. */
const WORDS = { from: 20, to: 160 };
/** Of the profiles that come with the service, the one that evicts nothing. */
const LOSSLESS = { crystalkv_profile: 'full' };

interface ChatRun {
  hit_rate: number;
  mean_first_token_seconds: number;
  seconds: number;
  answers: (readonly number[])[];
}

/** What it is worth to later turns that finished thinking leaves the cache first. Costs no quality: nothing is evicted. */
export async function measureChats(arms: Arms, { sizes, seed, say }: Context): Promise<Measured> {
  const rows = [];
  for (let number = 0; number < sizes.chats.rounds; number += 1) {
    const chat = (vllm: Vllm, options?: VllmRequest['options']) => runChats(vllm, sizes.chats, seed + number, options);
    let stock = number % 2 === 0 ? await chat(arms.stock) : undefined;
    const plugin = await chat(arms.plugin, LOSSLESS);
    stock ??= await chat(arms.stock);
    const [a, b] = [stock.answers, plugin.answers];
    const same = mean(a.map((tokens, i) => Number(`${tokens}` === `${b[i]}`)));
    const row = {
      figure: 'chats',
      stock: withoutAnswers(stock),
      plugin: withoutAnswers(plugin),
      same_answers_share: same,
    };
    rows.push(row);
    const hits = `${row.plugin.hit_rate} / ${row.stock.hit_rate}`;
    const first = `${row.plugin.mean_first_token_seconds} / ${row.stock.mean_first_token_seconds}`;
    say(`chats: prefix hits ${hits}, first token ${first} s, same answers ${same}`);
  }
  const figures = {
    chats_prefix_hit_rate_stock: median(rows.map((row) => row.stock.hit_rate)),
    chats_prefix_hit_rate_plugin: median(rows.map((row) => row.plugin.hit_rate)),
    chats_first_token_ratio: round(
      median(rows.map(({ stock, plugin }) => plugin.mean_first_token_seconds / stock.mean_first_token_seconds)),
    ),
    chats_same_answers_share: round(mean(rows.map((row) => row.same_answers_share))),
  };
  return { figures, rows };
}

/** All chats take their turns in the same order; a turn's thinking is dropped, as chat templates do. */
async function runChats(
  vllm: Vllm,
  { chats, turns, concurrency, userTokens, thinkingTokens, answerTokens }: Sizes['chats'],
  seed: number,
  options?: VllmRequest['options'],
): Promise<ChatRun> {
  const random = createRandom(seed);
  const histories: number[][] = Array.from({ length: chats }, () => []);
  const answers: (readonly number[])[] = [];
  const firstTokens: number[] = [];
  let [queries, hits, seconds] = [0, 0, 0];
  for (let turn = 0; turn < turns; turn += 1) {
    const requests = histories.map((history): VllmRequest => {
      for (let i = 0; i < userTokens; i += 1) history.push(random.integer(WORDS.from, WORDS.to));
      const maxTokens = thinkingTokens + answerTokens;
      return { prompt: [...history], maxTokens, ...(options === undefined ? {} : { options }) };
    });
    const run = await vllm.run({ requests, concurrency, ignoreEos: true, keepCache: turn > 0 });
    run.answers.forEach(({ tokens }, i) => {
      histories[i]!.push(...tokens.slice(thinkingTokens));
      answers.push(tokens);
    });
    seconds += run.seconds;
    if (turn === 0) continue;
    queries += run.prefix_cache_queries;
    hits += run.prefix_cache_hits;
    firstTokens.push(...run.answers.map((answer) => answer.first_token_seconds));
  }
  return {
    hit_rate: round(hits / queries),
    mean_first_token_seconds: round(mean(firstTokens), 4),
    seconds: round(seconds),
    answers,
  };
}

const withoutAnswers = ({ answers: _, ...figures }: ChatRun) => figures;
