-- Takes all claims of a dead member off it; their blocks are due at once, before others.
-- The death is counted against them until they get further; against who is probed, only
-- if their turn had come.
-- KEYS 1 claims 2 ready 3 deaths: block to 'KIND N INDEX', or with ' turn' behind, see deaths in poison.go
-- ARGV 1 nonce
-- Returns the blocks.
local out = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.match(all[i + 1], ' (.*)$') == ARGV[1] then
    redis.call('HDEL', KEYS[1], all[i])
    redis.call('ZADD', KEYS[2], 0, all[i])
    local kind, n, index, turn = string.match(redis.call('HGET', KEYS[3], all[i]) or '', '^(%a+) (%d+) (%-?%d+)( ?%a*)$')
    local more = 0
    if not kind or kind == 'died' or turn == ' turn' then more = 1 end
    redis.call('HSET', KEYS[3], all[i], string.format('%s %d %s', kind or 'died', (n or 0) + more, index or '-1'))
    out[#out + 1] = all[i]
  end
end
return out
