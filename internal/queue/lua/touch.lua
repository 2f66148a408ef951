-- Makes sure that somebody looks at a block again: evidence came for it from
-- outside a claim. Where it is claimed, its holder may have read the log for the last
-- time, so a mark is left for the release.
-- KEYS 1 claims 2 ready 3 queued 4 touched
-- ARGV 1 block
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('SADD', KEYS[4], ARGV[1])
elseif redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
return 1
