#!/bin/sh
# Ends what a process has started once that process is gone, however it ended: it holds the other end of standard input.
# Reads lines "add GROUP" and "drop GROUP", where GROUP is the id of a process group and of the program that leads it.
# When input ends, each program gets SIGTERM, also a frozen one, and what is left of its group $1 seconds later SIGKILL.
groups=
while read -r word group; do
  case $word in
    add) groups="$groups $group" ;;
    drop)
      rest=
      for one in $groups; do [ "$one" = "$group" ] || rest="$rest $one"; done
      groups=$rest
      ;;
  esac
done

exec 2>/dev/null
for group in $groups; do
  kill -s TERM "$group"
  kill -s CONT "$group"
done
left=$(($1 * 10))
while [ "$left" -gt 0 ]; do
  some=
  for group in $groups; do kill -s 0 -- "-$group" && some=yes; done
  [ -n "$some" ] || exit 0
  sleep 0.1
  left=$((left - 1))
done
for group in $groups; do kill -s KILL -- "-$group"; done
