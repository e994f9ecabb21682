/** What the model is asked: of every kind something, all to be answered at length. */
export const PROMPTS: readonly string[] = [
  'Write a long story about a lighthouse keeper who finds a letter in a bottle.',
  'Explain step by step how a bill becomes a law in the United States.',
  'A shop sells pens at 3 dollars and books at 12 dollars. Think aloud about how many of each 90 dollars can buy.',
  'Write a Python program that reads a file of names and marks and prints statistics. Explain every line.',
  'Write a long dialogue between a doctor and a patient who cannot sleep.',
  'Describe the history of the city of Rome from its beginnings to today.',
  'Make a detailed plan for a week of holidays with three children in the mountains.',
  'Compare cats and dogs as pets: list as many advantages and disadvantages as you can.',
  'Explain to a student how plants turn light into sugar, with all intermediate steps.',
  'Write a detailed recipe for a dinner with soup, main course and dessert.',
  'Write a letter of complaint to an airline that lost a suitcase twice.',
  'Argue for and against working from home, then come to a conclusion.',
  'Write the biography of an invented painter named Clara Voss.',
  'Solve this riddle aloud: Ann is older than Ben, Ben is older than Cem, Dora is younger than Cem. Who is the youngest?',
  'List twenty interesting facts about the planets and explain each of them.',
  'Write the report of a meeting of five colleagues about a late software project.',
];
