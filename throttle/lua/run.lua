-- What is done when Redis has restarted, or a replica has taken over: the last
-- seconds may be lost. After lib.lua.
--
-- KEYS[1]  dialled     when a connection was granted last
--          r           "RUN SINCE FROM": the Redis this was seen on last, dialled as
--                      that one had it when it began, and no connection before FROM
--          r:COUNTER   RUN, of which a counter has been charged
--          born        when this data began; missed  born, of which it was noticed

local dialled = tonumber(redis.call('HGET', state, 'dialled') or '') or 0

-- Returns which Redis this is ('': it does not say), dialled as it had it when it
-- began, and the time until which no connection is granted: so long everyone has to
-- renew leases and to say what was granted.
local function whoIsIt(grace)
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  local was, since, from = string.match(redis.call('HGET', state, 'r') or '', '^(%w+) (%d+) (%d+)$')
  if run == '' then
    return run, 0, 0
  end
  if was == run then
    return run, tonumber(since), tonumber(from)
  end
  from = dialled > 0 and now + grace or 0
  redis.call('HSET', state, 'r', run .. ' ' .. int(dialled) .. ' ' .. int(from))
  return run, dialled, from
end

-- Returns when this data began, and whether the asker is the first to notice that it is
-- not the data he knew: somebody has deleted that.
local function bornAt(known)
  local born = tonumber(redis.call('HGET', state, 'born') or '')
  if not born then
    born = now
    redis.call('HSET', state, 'born', int(now))
  end
  if known == 0 or known == born or redis.call('HGET', state, 'missed') == int(born) then
    return born, false
  end
  redis.call('HSET', state, 'missed', int(born))
  return born, true
end
