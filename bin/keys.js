#!/usr/bin/env node
import { launch } from './launch.js';

await launch('scripts/keys.js');
