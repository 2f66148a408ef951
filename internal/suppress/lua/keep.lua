-- Keeps texts under their numbers, once for all entries that have them.
-- KEYS 1 texts (hash: number → text)
-- ARGV 1 how many texts may be kept 2.. number and text of each
-- Returns a string with a letter a text: y it stands under its number, n it does not,
-- because there are too many or the number is another text's.
local said = {}
for i = 2, #ARGV, 2 do
  local there = redis.call('HGET', KEYS[1], ARGV[i])
  if not there and redis.call('HLEN', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    there = ARGV[i + 1]
  end
  said[#said + 1] = there == ARGV[i + 1] and 'y' or 'n'
end
return table.concat(said)
