-- Takes all claims of a dead member off it; their blocks are due at once, before others.
-- The death is counted against them until they get further.
-- KEYS 1 claims 2 ready 3 deaths: block to 'KIND N INDEX', see deaths in poison.go
-- ARGV 1 nonce
-- Returns the blocks.
local out = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.match(all[i + 1], ' (.*)$') == ARGV[1] then
    redis.call('HDEL', KEYS[1], all[i])
    redis.call('ZADD', KEYS[2], 0, all[i])
    local kind, n, index = string.match(redis.call('HGET', KEYS[3], all[i]) or '', '^(%a+) (%d+) (%-?%d+)$')
    redis.call('HSET', KEYS[3], all[i], string.format('%s %d %s', kind or 'died', (n or 0) + 1, index or '-1'))
    out[#out + 1] = all[i]
  end
end
return out
