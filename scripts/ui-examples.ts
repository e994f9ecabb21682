/** Writes what the live page offers; see `--help`. */
import { makeStory } from '../model/english/story.ts';
import { makeProgram } from '../model/task.ts';
import { OFFERED_PROGRAMS, OFFERED_STORIES } from './first-asked.ts';
import { runGenerator } from './generator.ts';

const FILE = 'gateway/ui/page/examples.json';
const HELP =
  'A program: "L9 yew 4 oak" means yew = 4 + oak, modulo 10; the questions at the end ask for values. ' +
  'The model works it out line by line, and must find values again that it wrote long ago.';

const STORY_HELP =
  'A story: each count follows from others. The model goes from person to person, and must find counts again that it wrote long ago.';

/** Tokens; of other models nothing is known. */
const ANY_BUDGET = 1024;

/** For any other reasoning model. */
const QUESTIONS = [
  {
    title: 'A bat and a ball',
    content: 'A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. What does the ball cost?',
  },
  {
    title: 'Three switches',
    content:
      'Three switches outside a closed room belong to three lamps inside. You may enter once. How do you find out which switch belongs to which lamp?',
  },
  {
    title: 'Sum of primes',
    content: 'What is the sum of all prime numbers below 60? Check your result a second time.',
  },
];

const text = `${JSON.stringify(
  [
    {
      model: 'crystal-mini',
      first: 1,
      profile: 'crystal',
      examples: OFFERED_PROGRAMS.map(({ lines, form, seed, budgetTokens }) => {
        const { messages, answer } = makeProgram(seed, lines, { form });
        const title = `Program of ${lines} lines${form === 'verbose' ? ', thinking aloud' : ''}`;
        return { title, messages, answer, budgetTokens, help: HELP };
      }),
    },
    {
      model: 'english',
      first: 0,
      profile: 'crystal',
      examples: OFFERED_STORIES.map(({ people, seed, budgetTokens }) => {
        const { messages, answer } = makeStory(seed, people);
        return { title: `Story of ${people} people`, messages, answer, budgetTokens, help: STORY_HELP };
      }),
    },
    {
      model: '',
      first: 0,
      profile: 'crystal',
      examples: QUESTIONS.map(({ title, content }) => ({
        title,
        messages: [{ role: 'user', content }],
        budgetTokens: ANY_BUDGET,
      })),
    },
  ],
  null,
  2,
)}\n`;

await runGenerator({
  name: 'ui-examples',
  about: `Writes ${FILE}: what the live page offers and preselects for each model. The gateway does not
know the models, so their questions are made here.`,
  make: async () => new Map([[FILE, text]]),
});
