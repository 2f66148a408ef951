-- Claims a block for one member. A claim is (epoch, nonce): the epoch rises with
-- every claim of the stream, so no two claims are ever alike. It is never less than
-- the time in microseconds: a counter that a restarted Redis has set back would give
-- a claim that is newer a lower epoch than one that was lost.
-- KEYS 1 queued 2 claims 3 epoch 4 ready 5 held 6 canary 7 deaths
-- ARGV 1 block 2 campaign 3 nonce 4 the member's login ('' = not told)
-- Returns {'ok'|'cancelled', epoch as a string, recipients of a canary that is not over
-- or '', deaths or ''} or {'taken'} or {'held'} or {'login'}.
redis.call('HDEL', KEYS[1], ARGV[1])
local mode = 'ok'
local h = redis.call('HGET', KEYS[5], ARGV[2])
if h and string.find(h, '"state":"cancelled"', 1, true) then
  mode = 'cancelled'
else
  local by = (h or redis.call('HEXISTS', KEYS[5], '*') == 1) and 'held'
  if not by and ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[5], '*' .. ARGV[4]) == 1 then by = 'login' end
  if by then
    if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
      redis.call('ZADD', KEYS[4], 'NX', 0, ARGV[1])
    end
    return {by}
  end
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return {'taken'} end
redis.call('ZREM', KEYS[4], ARGV[1])
local t = redis.call('TIME')
local e = math.max(tonumber(redis.call('GET', KEYS[3]) or '0') + 1, t[1] * 1000000 + t[2])
local epoch = string.format('%.0f', e)
redis.call('SET', KEYS[3], epoch)
redis.call('HSET', KEYS[2], ARGV[1], epoch .. ' ' .. ARGV[3])
local canary = mode == 'ok' and redis.call('HGET', KEYS[6], ARGV[2]) or ''
return {mode, epoch, string.match(canary, '^%d+') or '', redis.call('HGET', KEYS[7], ARGV[1]) or ''}
