// Ask the IAM simulator many questions at once: standard input has a JSON list of them, standard output has the list of answers.
//
// A question is {principal, action, resource, account, context, identity?, session?, trust?}: `identity` is the policy of the
// principal, `session` that of its session, `trust` that of the resource. An answer is {result, ignored}: what IAM would say, and
// which context keys the service does not have for the action. Run in the folder that has the simulator in its node_modules.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'

const { runSimulation } = createRequire(`${process.cwd()}/`)('@cloud-copilot/iam-simulate')

const answers = []
for (const question of JSON.parse(readFileSync(0, 'utf8'))) {
  const { principal, action, resource, account, context, identity, session, trust } = question
  const answer = await runSimulation(
    {
      request: { principal, action, resource: { resource, accountId: account }, contextVariables: context },
      identityPolicies: identity ? [{ name: 'identity', policy: identity }] : [],
      sessionPolicy: session,
      resourcePolicy: trust,
      serviceControlPolicies: [],
      resourceControlPolicies: []
    },
    {}
  )
  if (answer.resultType !== 'single') {
    throw new Error(`${action} on ${resource}: ${answer.resultType}: ${JSON.stringify(answer.errors)}`)
  }
  answers.push({ result: answer.overallResult, ignored: answer.result.ignoredContextKeys })
}
process.stdout.write(JSON.stringify(answers))
