-- Makes sure that somebody looks at a block again: evidence came for it from
-- outside a claim. A claimed block needs nothing, its holder reads the log last.
-- KEYS 1 claims 2 ready 3 queued
-- ARGV 1 block
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
return 1
