import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SPECIAL = ['<pad>', '<bos>', '<eos>', '<unk>', '<|user|>', '<|assistant|>'];

/** Words of a small model of crystal-mini's kind; a word's id is its index. */
export const WORDS = [
  ...SPECIAL,
  ...['<think>', '</think>', ';', ':', '+', '->', 'right', 'verbose'],
  ...Array.from({ length: 10 }, (_, i) => `${i}`),
  ...Array.from({ length: 10 }, (_, i) => `=${i}`),
  ...['Q1', 'Q2', 'L1', 'L2', 'L3', 'ant', 'bee', 'cat', 'dog'],
];

const TEMPLATE =
  "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ ' ' + m['content'] }}" +
  "{% elif m['role'] == 'user' %}{{ ' <|user|> ' + m['content'] }}" +
  "{% elif m['role'] == 'assistant' %}{{ ' <|assistant|> ' + m['content'] }}" +
  "{% else %}{{ raise_exception('roles are user and assistant') }}{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}{{ ' <|assistant|>' + (' <think>' if thinking | default(true) else '') }}{% endif %}";

/** Ids of words. */
export function ids(text: string): number[] {
  return text.split(' ').map((word) => {
    const id = WORDS.indexOf(word);
    if (id === -1) throw new Error(`no such word: ${word}`);
    return id;
  });
}

/** A Hugging Face folder of a tokenizer whose tokens are words. */
export function writeWordTokenizer(): string {
  return writeFolder({
    added_tokens: SPECIAL.map(addedToken),
    pre_tokenizer: { type: 'WhitespaceSplit' },
    decoder: null,
    model: { type: 'WordLevel', vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])), unk_token: '<unk>' },
  });
}

/** A Hugging Face folder of a tokenizer whose tokens are bytes: token id = 6 + byte. */
export function writeByteTokenizer(): string {
  const letters = byteLetters();
  const vocab = Object.fromEntries([...SPECIAL, ...letters].map((token, id) => [token, id]));
  return writeFolder({
    added_tokens: SPECIAL.map(addedToken),
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', vocab, merges: [] },
  });
}

/** Ids of the bytes of a text in the byte tokenizer. */
export function byteIds(text: string): number[] {
  return [...Buffer.from(text)].map((byte) => SPECIAL.length + byte);
}

function writeFolder(parts: object): string {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-'));
  process.once('exit', () => rmSync(folder, { recursive: true }));
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    normalizer: null,
    post_processor: null,
    ...parts,
  };
  const names = { bos_token: '<bos>', eos_token: '<eos>', pad_token: '<pad>', unk_token: '<unk>' };
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ ...names, chat_template: TEMPLATE }));
  return folder;
}

function addedToken(content: string, id: number): object {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

/** GPT-2's letters for the 256 bytes. */
function byteLetters(): string[] {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}
