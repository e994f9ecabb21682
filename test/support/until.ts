export { type Patience, until } from '../../scripts/until.ts';
