import { z } from 'zod';
import { tokenCount } from './bounds.ts';
import { type Controller, defineController, type Member } from './controller.ts';

const schema = z.strictObject({ type: z.literal('fixed'), budget_tokens: tokenCount });

/** Each request's own budget is in `Member.budgetBlocks`, so that one instance serves all. */
export const fixed = defineController({
  summary: 'Each request holds at most `budget_tokens` of output.',
  group: 'all',
  schema,
  options: ({ budget_tokens }) => ({ budgetTokens: budget_tokens }),
  create: createFixedController,
});

/**
 * Each request holds at most its budget of output blocks: the unfilled tail counts, and so does the block that the next
 * token will need, so that the budget still holds when the engine has allocated it.
 */
export function createFixedController(): Controller {
  return {
    quotas(members, _pool, quotas) {
      for (let i = 0; i < members.length; i += 1) quotas[i] = Math.max(0, excess(members[i]!, 1));
    },
    expectsEviction: (member, _pool, aheadTokens) => excess(member, 1 + aheadTokens) > 0,
  };
}

function excess({ table, budgetBlocks }: Member, aheadTokens: number): number {
  if (table.tokens === 0) return 0;
  return table.outputBlocksAt(table.tokens + aheadTokens) - (budgetBlocks ?? Number.POSITIVE_INFINITY);
}
